"""Mailgun's v3 API: Basic `api:<key>`, forms, `POST /v3/{domain}/messages`, errors as `{"message"}`."""
