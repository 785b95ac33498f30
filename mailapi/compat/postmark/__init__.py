"""Postmark's API: `X-Postmark-Server-Token`, JSON in capitals, errors as `{"ErrorCode", "Message"}`.

door           who asks, and what a client gets that posts again
shapes         a message of theirs → Draft; the table of fields
errors         what is wrong → their codes and words
sending        /email, /email/batch and the same from templates
bulk           /email/bulk
reading        /messages/outbound, /bounces, /deliverystats
suppressions   /message-streams/{stream}/suppressions
"""
