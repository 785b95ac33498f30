"""Bounds of an SMTP conversation, each with its reason. Sizes are octets, times seconds."""

from __future__ import annotations

# --- what we read from a server -------------------------------------------------------------------

#: RFC 5321 §4.5.3.1.5 says 512 per reply line; real servers write longer texts, none needs more than this
MAX_REPLY_LINE_OCTETS = 4096
#: a whole reply, continuation lines included: an EHLO of the richest server is below 2 KB
MAX_REPLY_OCTETS = 32_768
#: continuation lines of one reply; without a bound a server could feed us for ever
MAX_REPLY_LINES = 256

# --- what we write --------------------------------------------------------------------------------

#: RFC 5321 §4.5.3.1.6: 1000 octets with CRLF
MAX_LINE_OCTETS = 998
#: one TCP send of body octets, each under its own timer (RFC 5321 §4.5.3.2.5)
BLOCK_OCTETS = 65_536
#: RFC 5321 §4.5.3.1.2 and .3, which counts the angle brackets of a path; the 64 octets of a local part are not held to
MAX_DOMAIN_OCTETS = 255
MAX_PATH_OCTETS = 256
#: the conversation of one transaction as it is kept; more would make the attempts the largest table
MAX_TRANSCRIPT_OCTETS = 8192
#: one reply or note within it
MAX_TRANSCRIPT_ENTRY = 1024

# --- one round over the hops ----------------------------------------------------------------------

#: addresses tried in one round (RFC 5321 §5.1 asks for at least two); the retry tries again
MAX_ADDRESSES = 5
#: hosts that may answer our envelope with a 4xx in one round: a third would only say the same
MAX_REFUSALS = 2
#: a server that left a pipelined group half answered gets its commands one by one for so long: past the first
#: retries of the mail that met it, and not the whole day where a connection was only lost …
ONE_BY_ONE_S = 3600.0
#: … and so many servers are remembered
MAX_ONE_BY_ONE = 1000
#: a polite good-bye may take so long and no longer; the results are recorded already
QUIT_S = 5.0

# --- what the listener takes ----------------------------------------------------------------------

#: RFC 5321 §4.5.3.1.4 asks for 512; paths of 256 with SMTPUTF8 and parameters need more
MAX_COMMAND_OCTETS = 2048
#: lines of incoming mail: senders of bounces break the 998 rule every day, so we read on
MAX_INBOUND_LINE_OCTETS = 65_536
#: RFC 5321 §4.5.3.1.8: at least 100 recipients, then 452
MAX_RECIPIENTS = 100
#: RFC 5321 §6.3: a mail with more Received lines is going in circles
MAX_RECEIVED_HEADERS = 50
