"""Other doors to the same accept(): what clients of Postmark, SendGrid and Mailgun send and expect.

A face turns foreign JSON or forms into Drafts, and what happened into foreign words; it keeps nothing of its own.

    dispatch     whose client asks, by its credential, where the path does not say
    face         an endpoint whose errors have the face's shape
    reading      field by field: addresses, headers, files, and the table of what is honoured
    templates    the template that a request names
    leaving      the place of the link by which a person leaves
    filling      one mail to several people, with each one's words
    sending      Drafts → accept()
    query        words of a query string
"""
