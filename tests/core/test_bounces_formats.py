"""Formats of many mail systems in a few lines each, written from what their bounces look like."""
# ruff: noqa: E501 – lines of mails are as long as they are

from __future__ import annotations

import pytest

from deliveries.bounces.report import ReportKind, read_report

#: name, From, Subject, body, recipients, kind of the first one (None: not a bounce)
FORMATS: list[tuple[str, str, str, str, list[str], str | None]] = [
    (
        "GroupWise",
        "Mail System <postmaster@gw.example>",
        "Message status - undeliverable",
        (
            "The message that you sent was undeliverable to the following:\n"
            "\n"
            "\tkim@gw.example (user not found)\n"
            "\n"
            "Possibly truncated original message follows:\n"
            "\n"
            "From: a@sender.example\n"
        ),
        ["kim@gw.example"],
        "hard",
    ),
    (
        "MDaemon",
        "MDaemon@md.example",
        "Permanent Delivery Failure",
        (
            "----------------------------------------\n"
            "The attached message had PERMANENT fatal delivery errors!\n"
            "\n"
            "After one or more unsuccessful delivery attempts the attached message has\n"
            "been removed from the mail queue on this server.\n"
            "\n"
            "Failed address: kim@md.example\n"
            "\n"
            "--- Session Transcript ---\n"
            " Mon: <-- 220 mx\n"
            " Mon: --> RCPT To:<kim@md.example>\n"
            " Mon: <-- 550 <kim@md.example>, Recipient unknown\n"
            "--- End Transcript ---\n"
        ),
        ["kim@md.example"],
        "hard",
    ),
    (
        "CommuniGate",
        "MAILER-DAEMON@cgp.example",
        "Undeliverable mail",
        ("Failed to deliver to '<kim@cgp.example>'\nLOCAL module(account kim) reports:\n account does not exist\n"),
        ["kim@cgp.example"],
        "hard",
    ),
    (
        "IMail",
        "Postmaster <postmaster@im.example>",
        "Undeliverable Mail",
        ("Unknown user: kim@im.example\n\n\nOriginal message follows.\n\nFrom: a\n"),
        ["kim@im.example"],
        "hard",
    ),
    (
        "Courier",
        "mailer-daemon@cour.example",
        "NOTICE: mail delivery status.",
        (
            "This is a delivery status notification from cour.example,\n"
            "running the Courier mail server, version 0.65.\n"
            "\n"
            "The original message was received on Mon\n"
            "from x\n"
            "\n"
            "---------------------------------------------------------------------------\n"
            "\n"
            "                           UNDELIVERABLE MAIL\n"
            "\n"
            "Your message to the following recipients cannot be delivered:\n"
            "\n"
            "<kim@cour.example>:\n"
            "    mx.cour.example [192.0.2.1]:\n"
            ">>> RCPT TO:<kim@cour.example>\n"
            "<<< 550 User unknown.\n"
            "\n"
            "---------------------------------------------------------------------------\n"
            "\n"
            "If your message was also sent\n"
        ),
        ["kim@cour.example"],
        "hard",
    ),
    (
        "Gmail",
        "Mail Delivery Subsystem <mailer-daemon@googlemail.com>",
        "Delivery Status Notification (Failure)",
        (
            "** Address not found **\n"
            "\n"
            "Your message wasn't delivered to kim@gm.example because the address couldn't be found, or is unable to receive mail.\n"
            "\n"
            "The response from the remote server was:\n"
            "550 5.1.1 no such user\n"
        ),
        ["kim@gm.example"],
        "hard",
    ),
    (
        "Gmail, German",
        "Mail Delivery Subsystem <mailer-daemon@googlemail.com>",
        "Delivery Status Notification (Failure)",
        (
            "** Die Adresse wurde nicht gefunden **\n"
            "\n"
            "Ihre Nachricht wurde nicht an kim@gm.example zugestellt, weil die Adresse nicht gefunden wurde oder keine E-Mails empfangen kann.\n"
        ),
        ["kim@gm.example"],
        "hard",
    ),
    (
        "GMX",
        "Mail Delivery System <mailer-daemon@kundenserver.example>",
        "Mail delivery failed: returning message to sender",
        (
            "This message was created automatically by mail delivery software.\n"
            "\n"
            "A message that you sent could not be delivered to\n"
            "one or more of its recipients. This is a permanent error.\n"
            "The following address(es) failed:\n"
            "\n"
            "kim@gmx.example:\n"
            "SMTP error from remote server for RCPT TO command, host: mx00.gmx.example (192.0.2.1) reason: 550 Requested action not taken: mailbox unavailable\n"
            "\n"
            "--- The header of the original message is following. ---\n"
            "\n"
            "From: a\n"
        ),
        ["kim@gmx.example"],
        "hard",
    ),
    (
        "web.de, German",
        "MAILER-DAEMON@mail.example",
        "Unzustellbare Nachricht",
        (
            "Leider konnte Ihre Nachricht an folgende Empfänger nicht zugestellt werden:\n"
            "\n"
            "kim@web.example\n"
            "Empfänger unbekannt\n"
        ),
        ["kim@web.example"],
        "hard",
    ),
    (
        "Exchange 2003",
        "postmaster@ex.example",
        "Delivery Status Notification (Failure)",
        (
            "Your message did not reach some or all of the intended recipients.\n"
            "\n"
            "      Subject:\tHello\n"
            "      Sent:\t11/2/2026 9:00 AM\n"
            "\n"
            "The following recipient(s) could not be reached:\n"
            "\n"
            "      kim@ex.example on 11/2/2026 9:00 AM\n"
            "            The e-mail account does not exist at the organization this message was sent to.  Check the e-mail address, or contact the recipient directly to find out the correct address.\n"
            "            <ex.example #5.1.1>\n"
        ),
        ["kim@ex.example"],
        "hard",
    ),
    (
        "Exchange, French",
        "postmaster@ex.example",
        "Non remis : Bonjour",
        (
            "Échec de la remise à ces destinataires ou groupes :\n"
            "\n"
            "kim@ex.example\n"
            "L'adresse de messagerie que vous avez entrée est introuvable.\n"
            "\n"
            "Informations de diagnostic pour les administrateurs :\n"
            "Serveur : x\n"
            "kim@ex.example\n"
            "#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##\n"
        ),
        ["kim@ex.example"],
        "hard",
    ),
    (
        "Mimecast",
        "postmaster@mc.example",
        "[Postmaster] Email Delivery Failure",
        (
            "This is a message from the Mimecast postmaster: The message you sent failed to be delivered to one or more recipients.\n"
            "\n"
            "Message\n"
            "Subject: x\n"
            "Recipient: kim@mc.example\n"
            "Reason: 550 Invalid Recipient\n"
        ),
        ["kim@mc.example"],
        "hard",
    ),
    (
        "MailMarshal",
        "postmaster@mm.example",
        'Undeliverable Mail: "x"',
        (
            "Your message:\n"
            "   From:    a@sender.example\n"
            "   Subject: x\n"
            "\n"
            "Could not be delivered because of\n"
            "\n"
            "550 5.1.1 User unknown\n"
            "\n"
            "The following recipients were affected:\n"
            "    kim@mm.example\n"
        ),
        ["kim@mm.example"],
        "hard",
    ),
    (
        "Yandex, Russian",
        "mailer-daemon@yandex.example",
        "Недоставленное сообщение",
        (
            "Это письмо отправлено почтовым сервером.\n"
            "\n"
            "К сожалению, мы вынуждены сообщить Вам о том, что Ваше письмо не может\n"
            "быть отправлено одному или нескольким адресатам.\n"
            "\n"
            "<kim@ya.example>: host mx.ya.example[192.0.2.1] said: 550 5.7.1 No such user! (in reply to RCPT TO command)\n"
        ),
        ["kim@ya.example"],
        "hard",
    ),
    (
        "QQ, Chinese",
        "PostMaster@qq.example",
        "系统退信/Systems bounce",
        (
            "抱歉，您的邮件被退回来了……\n"
            "原邮件信息：\n"
            "收件人  kim@qq.example\n"
            "退信原因：\n"
            "收件人邮箱不存在 host mx said: 550 Mailbox not found\n"
        ),
        ["kim@qq.example"],
        "hard",
    ),
    (
        "Netscape",
        "Mail Administrator<Postmaster@ns.example>",
        "Mail System Error - Returned Mail",
        (
            "This Message was undeliverable due to the following reason:\n"
            "\n"
            "Each of the following recipients was rejected by a remote mail server.\n"
            "The reasons given by the server are included to help you determine why\n"
            "each recipient was rejected.\n"
            "\n"
            "    Recipient: <kim@ns.example>\n"
            "    Reason:    5.1.1 <kim@ns.example>... User unknown\n"
            "\n"
            "Please reply to Postmaster@ns.example\n"
        ),
        ["kim@ns.example"],
        "hard",
    ),
    (
        "Barracuda",
        "MAILER-DAEMON@bar.example",
        "Undelivered Mail Returned to Sender",
        (
            "This is the Barracuda mail system.\n"
            "\n"
            "<kim@bar.example>: host 10.0.0.1[10.0.0.1] said: 550 permanent failure for one or more recipients (kim@bar.example:550 5.1.1 User unknown) (in reply to end of DATA command)\n"
        ),
        ["kim@bar.example"],
        "hard",
    ),
    (
        "Exchange, Spanish",
        "Correo <postmaster@es.example>",
        "No se puede entregar: hola",
        ("No se pudo entregar el mensaje a los siguientes destinatarios:\n\nkim@es.example\nEl usuario no existe.\n"),
        ["kim@es.example"],
        "hard",
    ),
    (
        "Symantec",
        "postmaster@ml.example",
        "Undeliverable: x",
        ("Delivery to the following recipients failed:\n\n  kim@ml.example\n\n  552 5.2.2 mailbox full\n"),
        ["kim@ml.example"],
        "soft",
    ),
    (
        "Amavis",
        '"Content-filter at x" <postmaster@am.example>',
        "Undeliverable mail, SPAM FOUND",
        (
            "A message from <a@sender.example> to:\n"
            "-> kim@am.example\n"
            "\n"
            "was considered unsolicited bulk e-mail (UBE).\n"
            "\n"
            "Delivery of the email was stopped!\n"
        ),
        ["kim@am.example"],
        "soft",
    ),
    (
        "Zoho",
        "mailer-daemon@mail.zoho.example",
        "Undelivered Mail Returned to Sender",
        (
            "This message was created automatically by mail delivery software.\n"
            "A message that you sent could not be delivered to one or more of its recipients. This is a permanent error.\n"
            "\n"
            "kim@zo.example, ERROR CODE :550 - 5.1.1 <kim@zo.example>: Recipient address rejected: User unknown\n"
        ),
        ["kim@zo.example"],
        "hard",
    ),
    (
        "automatic reply, Italian",
        "Ann <ann@x.example>",
        "Risposta automatica: ciao",
        ("Sono fuori ufficio.\n"),
        [],
        None,
    ),
    (
        "absence note, German",
        "Ann <ann@x.example>",
        "Abwesenheitsnotiz",
        ("Ich bin bis zum 3. nicht im Haus.\n"),
        [],
        None,
    ),
    (
        "ticket receipt",
        "Support <help@x.example>",
        "[#123] We got your request",
        ("We have received your request. User unknown? No.\n"),
        [],
        None,
    ),
    (
        "newsletter about bounces",
        "News <bounce@list.example>",
        "Weekly: delivery failures and how to avoid them",
        ("When mail could not be delivered to kim@example.com you see 550 5.1.1 user unknown.\n"),
        [],
        None,
    ),
]


@pytest.mark.parametrize(
    ("sender", "subject", "body", "recipients", "kind"), [f[1:] for f in FORMATS], ids=[f[0] for f in FORMATS]
)
def test_a_format_without_fields_is_read(
    sender: str, subject: str, body: str, recipients: list[str], kind: str | None
) -> None:
    head = f"From: {sender}\nTo: bounce@sender.example\nSubject: {subject}\nDate: Mon, 2 Nov 2026 00:00:00 +0000\n\n"
    report = read_report((head + body).encode())
    assert [r.address for r in report.recipients] == recipients
    if kind is None:
        assert report.kind in (ReportKind.AUTO_REPLY, ReportKind.ORDINARY)
    else:
        assert (report.kind, report.recipients[0].kind) == (ReportKind.BOUNCE, kind), report.recipients[0].rule
