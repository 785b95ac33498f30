"""Postmark's API: `X-Postmark-Server-Token`, JSON in capitals, errors as `{"ErrorCode", "Message"}`.

shapes       a message of theirs → Draft; the table of fields
errors       what is wrong → their codes and words
sending      /email, /email/batch …
"""
