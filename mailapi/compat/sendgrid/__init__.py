"""SendGrid's v3 API: Bearer, `POST /v3/mail/send` → 202, no body, errors as `{"errors": [{"message", "field"}]}`.

door           errors in their words
shapes         a request of theirs → Drafts, one for each personalization; the table of fields
sending        /v3/mail/send
leaving        unsubscribe groups, subscription tracking, the places of links
suppressions   /v3/suppression/…
unsubscribes   /v3/asm/suppressions/global, /v3/asm/groups/…/suppressions
"""
