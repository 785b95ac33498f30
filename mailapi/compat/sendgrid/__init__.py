"""SendGrid's v3 API: Bearer, `POST /v3/mail/send` → 202, no body, errors as `{"errors": [{"message", "field"}]}`.

shapes       a request of theirs → Drafts, one for each personalization; the table of fields
door         errors in their words
sending      /v3/mail/send
"""
