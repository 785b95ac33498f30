"""Mailgun's v3 API: Basic `api:<key>`, forms, `POST /v3/{domain}/messages`, errors as `{"message"}`.

form         urlencoded or multipart → fields and files, under caps
shapes       a form of theirs → Drafts, several where there are recipient variables; the table of fields
door         who asks, and errors in their words
sending      /v3/{domain}/messages and messages.mime
    events       /v3/{domain}/events
    lists        /v3/{domain}/bounces, complaints, unsubscribes
"""
