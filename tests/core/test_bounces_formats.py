"""Formats of many mail systems in a few lines each, written from what their bounces look like."""
# ruff: noqa: E501 – lines of mails are as long as they are

from __future__ import annotations

import json

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
        "the mail returned under a line of few words",
        "System Administrator <postmaster@x.example>",
        "Delivery Failure",
        (
            "Could not deliver message to the following recipient(s):\n\nFailed Recipient: kim@example.com\n"
            "Reason: Remote host said: 550 No such user here\n\n"
            "   -- The header and top 20 lines of the message follows --\n\nFrom: us@sender.example\n"
        ),
        ["kim@example.com"],
        "hard",
    ),
    (
        "a form whose label is no word of its sentence",
        "Postmaster <postmaster@me.example>",
        "Message Delivery Failure",
        "\tRecipient: [SMTP:kim@me.example]\n\tReason: The recipient address does not exist on this server.\n",
        ["kim@me.example"],
        "hard",
    ),
    (
        "a transcript that names the command refused",
        "mailer-daemon@hm.example",
        "Message undeliverable: x",
        (
            "kim@hm.example\n   Error Type: SMTP\n   Remote server (192.0.2.1) issued an error.\n"
            "   hMailServer sent: RCPT TO:<kim@hm.example>\n   Remote server replied: 550 Unknown user\n"
        ),
        ["kim@hm.example"],
        "hard",
    ),
    (
        "qmail's paragraph before its greeting",
        "MAILER-DAEMON@qm.example",
        "failure notice",
        (
            "I'm afraid I wasn't able to deliver your message to the following addresses.\n\n"
            "<kim@qm.example>:\nThis address no longer accepts mail.\n\n--- Below this line is a copy of the message.\n"
        ),
        ["kim@qm.example"],
        "hard",
    ),
    (
        "a subject of delivery and failure, in Greek",
        "postmaster@gr.example",
        "Αποτυχία παράδοσης",
        "Το μήνυμα προς kim@gr.example δεν ήταν δυνατό να παραδοθεί: ο χρήστης δεν υπάρχει.\n",
        ["kim@gr.example"],
        "hard",
    ),
    (
        "a subject that says nothing, and a reply",
        "MAILER-DAEMON@qm.example",
        "Message 4711",
        "<kim@qm.example>: host mx said: 550 5.1.1 No such user here\n",
        ["kim@qm.example"],
        "hard",
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


#: Exchange in the languages of its users: Subject, the line before the address, the line after it
EXCHANGE = [
    ("Unzustellbar: x", "Fehler bei der Nachrichtenzustellung an folgende Empfänger oder Gruppen:", "Die von Ihnen eingegebene E-Mail-Adresse konnte nicht gefunden werden."),
    ("Non remis : x", "Échec de la remise à ces destinataires ou groupes :", "L'adresse de messagerie que vous avez entrée est introuvable."),
    ("No se puede entregar: x", "Error al entregar a los siguientes destinatarios o grupos:", "No se encontró la dirección de correo electrónico que ha escrito."),
    ("Non recapitabile: x", "Recapito non riuscito per i seguenti destinatari o gruppi:", "L'indirizzo di posta elettronica immesso non è stato trovato."),
    ("Niet te bezorgen: x", "Bezorging aan de volgende geadresseerden of groepen is mislukt:", "Het door u ingevoerde e-mailadres is niet gevonden."),
    ("Não entregue: x", "Falha na entrega para estes destinatários ou grupos:", "O endereço de e-mail inserido não foi encontrado."),
    ("Niedostarczalne: x", "Nie można dostarczyć wiadomości do następujących adresatów lub grup:", "Nie znaleziono wprowadzonego adresu e-mail."),
    ("Kan inte levereras: x", "Det gick inte att leverera till följande mottagare eller grupper:", "Den e-postadress du angav hittades inte."),
    ("Kan ikke leveres: x", "Levering til disse modtagere eller grupper mislykkedes:", "Den mailadresse, du angav, blev ikke fundet."),
    ("Nedoručitelné: x", "Doručení následujícím příjemcům nebo skupinám se nezdařilo:", "Zadaná e-mailová adresa nebyla nalezena."),
    ("Teslim Edilemedi: x", "Şu alıcılara veya gruplara teslim edilemedi:", "Girdiğiniz e-posta adresi bulunamadı."),
    ("Недоставлено: x", "Сбой доставки следующим получателям или группам:", "Не найден указанный адрес электронной почты."),
    ("配信不能: x", "次の受信者またはグループに配信できませんでした:", "入力した電子メール アドレスが見つかりませんでした。"),
    ("未传递: x", "无法向以下收件人或组传递邮件:", "找不到您输入的电子邮件地址。"),
    ("배달되지 않음: x", "다음 받는 사람 또는 그룹에게 배달하지 못했습니다:", "입력한 전자 메일 주소를 찾을 수 없습니다."),
]  # fmt: skip


@pytest.mark.parametrize(("subject", "before", "after"), EXCHANGE, ids=[row[0] for row in EXCHANGE])
def test_exchange_says_in_every_language_that_an_address_is_not_there(subject: str, before: str, after: str) -> None:
    mail = (
        f"From: postmaster@corp.example\nSubject: {subject}\nReturn-Path: <>\n\n{before}\n\nkim@example.net\n{after}\n"
    )
    (said,) = read_report(mail.encode()).recipients
    assert (said.address, said.kind) == ("kim@example.net", "hard"), said.rule


DAEMON = "From: Mail Delivery System <MAILER-DAEMON@mx.example>\nReturn-Path: <>\n"
PARCEL = "From: Parcels <noreply@parcel.example>\nReturn-Path: <>\n"
BOB = "From: Bob <bob@example.org>\n"

#: what only sounds like a failure: sender's lines, Subject, text, what it is
NOT_FAILED = [
    (PARCEL, "Your parcel has been delayed", "Your delivery has been delayed.", ReportKind.ORDINARY),
    (PARCEL, "You have been unsubscribed", "Undeliverable mail came back from your address.", ReportKind.ORDINARY),
    (DAEMON, "Report Domain: a.example Submitter: mx.example Report-ID: 1", "3 messages failed", ReportKind.ORDINARY),
    (BOB, "[org/mta] Undeliverable: the wording (#12)", "> <kim@example.net>: 550 5.1.1 User unknown\n\nDelivery has failed", ReportKind.ORDINARY),
    (BOB, "Fwd: Mail delivery failed", "It says it could not be delivered:\n\n  kim@example.net\n    550 unknown user", ReportKind.ORDINARY),
    ("From: no-reply@mail.shop.example\n", "Delivery delayed", "It could not be delivered today.", ReportKind.ORDINARY),
    ("From: postmaster@corp.example\nReturn-Path: <>\n", "Out of office", "I am away.", ReportKind.AUTO_REPLY),
    (BOB, "FW: Undeliverable: x", "Look!\n\n-----Original Message-----\nFrom: postmaster@corp.example\nTo: bob@example.org\nSubject: Undeliverable: x\n\nkim@example.net\n550 5.1.1 User unknown", ReportKind.ORDINARY),
    ("From: Postmaster <postmaster@isp.example>\n", "Re: [#551] delisting", "Mail could not be delivered before.", ReportKind.ORDINARY),
    ("From: Kim <kim@example.net>\nReturn-Path: <>\n", "I am away", "Urgent:\npat@example.net\nPhone: (212) 450-1234", ReportKind.ORDINARY),
    ("From: Kim <kim@example.net>\nReturn-Path: <>\n", "Holidays", "Back in May.\nKim@example.net\n550 Main Street", ReportKind.ORDINARY),
    (BOB, "Re: Undelivered Mail", "> <kim@example.net>: 550 5.1.1 User unknown\n>\n> could not be delivered\n>\n> Received: from a\n> From: b\n\nAgain?", ReportKind.ORDINARY),
    (BOB, "What a report looks like", "Final-Recipient: rfc822; kim@example.net\nAction: failed\nStatus: 5.1.1", ReportKind.ORDINARY),
    (DAEMON, "Automatic reply: Undelivered Mail", "I am away. User unknown? Ask noc@example.net.", ReportKind.AUTO_REPLY),
    (DAEMON, "延迟: x", "向这些收件人或组的传递被延迟:\n\nkim@example.net\n\n将继续尝试。", ReportKind.DELAYED),
    (DAEMON, "Weitergeleitet: x", "abgeschlossen, es wurde jedoch keine Zustellungsbenachrichtigung gesendet:\n\nkim@example.net", ReportKind.DELIVERED),
    (BOB, "Automatická odpověď: x", "Jsem mimo kancelář.", ReportKind.AUTO_REPLY),
    (DAEMON, "Delivery Status Notification (Success)", "Your message was successfully delivered to\n\n<kim@example.net>", ReportKind.DELIVERED),
    (DAEMON, "Relayed: x", "Delivery is complete, but no delivery notification was sent by the destination server:\n\nkim@example.net", ReportKind.DELIVERED),
    (DAEMON, "Remise différée", "Votre message à kim@example.net n'a pas encore pu être remis.", ReportKind.DELAYED),
    (DAEMON, "Warning", "<kim@example.net>:\nhas not yet been delivered; in 4 days we give up and it is returned to sender", ReportKind.DELAYED),
    (DAEMON, "Delivered: x", "Your message\n\n  To: kim@example.net\n\nwas delivered to the recipient's mailbox.", ReportKind.DELIVERED),
    (DAEMON, "Your mailbox is almost full", "It has used 90% of its quota. You cannot send before you delete mail.", ReportKind.ORDINARY),
    (DAEMON, "Mail Delivery Warning", "Delivery to\n\n\"kim@example.net\"\n\nhas been postponed. We will continue to try.", ReportKind.DELAYED),
]  # fmt: skip


@pytest.mark.parametrize(("sender", "subject", "text", "kind"), NOT_FAILED, ids=[row[1] for row in NOT_FAILED])
def test_what_only_sounds_like_a_failure_is_none(sender: str, subject: str, text: str, kind: ReportKind) -> None:
    assert read_report(f"{sender}Subject: {subject}\n\n{text}\n".encode()).kind is kind


#: a letter that names others beside the one whom it did not reach
AMONG_OTHERS = [
    "Your message <2026.a@mail.sender.example> from app@sender.example to kim@example.net could not be delivered: no such mailbox.\n\nAsk help.me@mx.example",
    "The mail that app@sender.example sent to\n\"Kim Lee\" <kim@example.net>\nwas returned: 550 5.1.1 User unknown",
    "Recipient:\n  kim@example.net\nDiagnostic:\n  550 5.1.1 <kim@example.net>: User unknown\nSender:\n  app@sender.example",
    "Sehr geehrter Absender,\n\ndie Nachricht von app@sender.example an kim@example.net konnte nicht zugestellt werden, da der Empfänger unbekannt ist.",
    "app@sender.example から kim@example.net 宛のメールは、宛先不明のため配信できませんでした。",
    "This message was undeliverable due to the following reason:\n\nThese destination addresses were unknown:\n\nSMTP <kim@example.net>\n\nPlease reply to Postmaster@mx.example",
]  # fmt: skip


@pytest.mark.parametrize("text", AMONG_OTHERS, ids=range(len(AMONG_OTHERS)))
def test_of_those_whom_a_letter_names_the_recipient_is_found(text: str) -> None:
    said = read_report(f"{DAEMON}Subject: Undelivered mail\n\n{text}\n".encode()).recipients
    assert [(r.address, r.kind) for r in said] == [("kim@example.net", "hard")], said


#: a letter about two, of whom the first is unknown and the second is full, gone astray or reached too late
OF_TWO = {
    "a row": "It could not be delivered to kim@a.example and pat@b.example.\n\nkim@a.example: 550 5.1.1 User unknown\npat@b.example: 552 5.2.2 full\n",
    "a list, then a transcript": "<kim@a.example>\n<pat@b.example>\n\n --- Transcript of session follows ---\n>>> RCPT To:<kim@a.example>\n<<< 550 5.1.1 <kim@a.example>... User unknown\n550 5.1.1 <kim@a.example>... User unknown\n>>> RCPT To:<pat@b.example>\n<<< 552 5.2.2 mailbox full\n",
    "one of them without a reply": "kim@a.example\n   Remote server replied: 550 5.1.1 Unknown user\n\npat@b.example\n   Connection to recipients server failed.\n",
    "the same sentence twice": "The following message to <kim@a.example> was undeliverable.\n5.1.1 - Unknown address error\n\nThe following message to <pat@b.example> was undeliverable.\n5.4.7 - Delivery expired\n",
    "details below a list": "     kim@a.example\n     pat@b.example\n\nTechnical details of permanent failure for kim@a.example:\n550 5.1.1 User unknown\n\nTechnical details of permanent failure for pat@b.example:\n552 5.2.2 Mailbox full\n",
    "the header of the mail above": "  To: list@a.example\n\n  Recipient address: kim@a.example\n  Reason: Rejected\n  Diagnostic code: smtp;550 5.1.1 User unknown\n\n  Recipient address: pat@b.example\n  Diagnostic code: smtp;552 5.2.2 user over quota\n",
}  # fmt: skip


@pytest.mark.parametrize("text", OF_TWO.values(), ids=OF_TWO)
def test_each_of_several_is_judged_by_what_is_said_of_it(text: str) -> None:
    said = read_report(f"{DAEMON}Subject: Returned mail\n\n{text}".encode()).recipients
    assert [(r.address, r.kind == "hard") for r in said] == [("kim@a.example", True), ("pat@b.example", False)], said


def test_what_was_put_off_before_it_was_returned_is_no_delay() -> None:
    text = "<kim@example.net>: delivery temporarily suspended: connect to mx[192.0.2.1]:25: No route to host"
    report = read_report(f"{DAEMON}Subject: Undelivered Mail Returned to Sender\n\n{text}\n".encode())
    assert (report.kind, report.recipients[0].kind) == (ReportKind.BOUNCE, "soft")


def test_a_delay_that_ended_is_a_failure() -> None:
    text = "<kim@example.net>:\nhas been delayed for 5 days. I'm giving up: 550 5.1.1 User unknown"
    report = read_report(f"{DAEMON}Subject: failure notice\n\n{text}\n".encode())
    assert (report.kind, report.recipients[0].kind) == (ReportKind.BOUNCE, "hard")


RETURNED = "From: App <app@ours.example>\nTo: kim@example.net\nSubject: x\nMessage-ID: <1@ours.example>\n\nHello\n"
FIELDS = (
    "Reporting-MTA: dns; mx.example\n\nFinal-Recipient: rfc822; kim@example.net\nAction: failed\nStatus: 5.1.1\n"
    "Diagnostic-Code: smtp; 550 5.1.1 User unknown\n"
)


@pytest.mark.parametrize(
    ("mail", "kind"),
    [
        (  # the first status part names nobody (InterMail)
            f"{DAEMON}Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
            f"Undeliverable\n--b\nContent-Type: message/delivery-status\n\n{FIELDS}\n--b--\n",
            "hard",
        ),
        (  # passed on by a person whose subject already says so
            f"{BOB}Subject: Fwd: Undelivered mail\nContent-Type: multipart/mixed; boundary=c\n\n--c\n"
            f"Content-Type: message/rfc822\n\n{DAEMON}Content-Type: message/delivery-status\n\n{FIELDS}\n--c--\n",
            "hard",
        ),
        (  # the returned header is known by its shape, not by the line above it
            f"{DAEMON}Subject: Fehler\n\n<kim@example.net>:\nEmpfänger unbekannt.\n\n--- Es folgt die Nachricht.\n\n{RETURNED}",
            "hard",
        ),
        (  # DATA is refused because RCPT was (RFC 2920 §3.1): its code does not count
            f"{DAEMON}Subject: Returned mail\n\n<kim@example.net>\n    (reason: 552 5.2.2 Over quota)\n\n>>> DATA\n"
            "<<< 552 5.2.2 Over quota\n<<< 503 5.5.1 No recipients\n",
            "soft",
        ),
        (  # an earlier try is told too: the last word is the 550's
            f"{DAEMON}Subject: failure\n\n<kim@example.net>:\nfirst 421 4.7.0 too busy, then 550 5.1.1 User unknown\n",
            "hard",
        ),
        (  # the fold before boundary= was lost
            f"{DAEMON}Subject: failure\nContent-Type: multipart/mixed;\nboundary=b\n\n--b\nContent-Type: text/html\n\n"
            f"<!-- <a@b.example> --><h2>Failed</h2><PRE>\n&lt;kim@example.net&gt;:\n550 5.1.1 User unknown\n</pre>\n--b--\n",
            "hard",
        ),
        (  # BlackBerry and others: the reply stands in a field of their own
            f"{DAEMON}Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; kim@example.net\nAction: failed\n"
            "Status: 5.0.0\nX-Supplementary-Info: <mx.example #5.0.0 smtp; 550 5.1.1\n User unknown>\n",
            "hard",
        ),
        (f"{DAEMON}Subject: 退信\n\n收件人：kim@example.net的邮件\n退信原因：收件人邮件地址不存在\n", "hard"),
        (
            f"{DAEMON}Subject: Undeliverable\n\n\t* [kim@example.net]: 550 over quota\n\n * To: bob@example.net\n",
            "soft",
        ),
    ],
)
def test_odd_shapes_name_the_one_whom_the_mail_did_not_reach(mail: str, kind: str) -> None:
    (said,) = read_report(mail.encode()).recipients
    assert (said.address, said.kind) == ("kim@example.net", kind), said.rule
    assert said.status != "5.5.1"


@pytest.mark.parametrize(("subtype", "kind"), [("NoEmail", "hard"), ("MailboxFull", "soft"), ("Suppressed", "soft")])
def test_an_event_of_ses_without_a_reply_is_read_by_its_subtype(subtype: str, kind: str) -> None:
    bounce = {"bounceSubType": subtype, "bouncedRecipients": [{"emailAddress": "kim@example.net"}]}
    event = json.dumps({"notificationType": "Bounce", "bounce": bounce})
    (said,) = read_report(f"From: SNS <no-reply@sns.example>\n\n{event}\n".encode()).recipients
    assert said.kind == kind, said.rule


def test_a_failure_that_names_nobody_still_says_why() -> None:
    (said,) = read_report(f"{DAEMON}Subject: Undeliverable\n\nThe user kim does not exist.\n".encode()).recipients
    assert (said.address, said.kind) == ("", "hard")


def test_a_mark_of_bounces_outweighs_that_it_was_sent_automatically_and_by_an_unknown_name() -> None:
    mail = b"From: Mail <noreply@a.example>\nSubject: x\nX-Failed-Recipients: kim@example.net\nAuto-Submitted: auto-replied\n"
    report = read_report(mail + b"\n  kim@example.net\n    550 5.1.1 no such user\n")
    assert (report.kind, report.recipients[0].kind) == (ReportKind.BOUNCE, "hard")


def test_a_gateway_that_passes_a_report_on_says_what_the_report_says() -> None:
    inner = (
        "From: MAILER-DAEMON@in.example\nSubject: failed\n\nReporting-MTA: dns; in.example\n\n"
        "Final-Recipient: rfc822; kim@example.net\nAction: failed\nStatus: 5.1.1\n"
    )
    head = "From: postmaster@gw.example\nSubject: Undeliverable mail\nContent-Type: multipart/mixed; boundary=b\n\n"
    parts = f"--b\n\nThe attached report came for you.\n--b\nContent-Type: message/rfc822\n\n{inner}\n--b--\n"
    report = read_report((head + parts).encode())
    assert [(r.address, r.kind) for r in report.recipients] == [("kim@example.net", "hard")]


def test_who_is_greeted_is_not_the_one_whom_it_did_not_reach() -> None:
    mail = b"From: mailer-daemon@googlemail.com\nSubject: Delivery Status Notification (Failure)\n\n"
    (said,) = read_report(
        mail + b"Hello app@sender.example,\n\nthe group you tried to contact may not exist."
    ).recipients
    assert said.address == ""


def test_a_question_in_the_form_of_a_report_is_an_automatic_reply() -> None:
    held = FIELDS.replace("5.1.1", "4.7.0").replace("User unknown", "Sender not pre-approved")
    mail = (
        f"From: noreply@filter.example\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\n"
        f"Please confirm your message.\n--b\nContent-Type: message/delivery-status\n\n{held}\n--b--\n"
    )
    assert read_report(mail.encode()).kind is ReportKind.AUTO_REPLY
