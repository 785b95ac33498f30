"""SendGrid's v3 API: Bearer, `POST /v3/mail/send` → 202, no body, errors as `{"errors": [{"message", "field"}]}`."""
