"""The shape of a mail: what becomes of what was asked, without a database."""

import base64

import pytest
from pydantic import ValidationError

from mailapi.schemas.attachments import AttachmentIn
from mailapi.schemas.emails import SendEmail
from mailapi.schemas.faults import faults_of

_MAIL = {"from": "Shop <a@b.example>", "to": "c@d.example", "subject": "x", "text": "y"}


def test_one_address_and_a_list_of_one_are_the_same():
    assert SendEmail.model_validate(_MAIL).draft() == SendEmail.model_validate({**_MAIL, "to": ["c@d.example"]}).draft()


def test_names_and_case_of_local_parts_are_kept():
    draft = SendEmail.model_validate({**_MAIL, "cc": ["Ann <Ann.Lee@D.Example>"]}).draft()
    assert (draft.cc[0].display_name, draft.cc[0].addr_spec) == ("Ann", "Ann.Lee@d.example")
    assert draft.sender.display_name == "Shop"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.pdf", "application/pdf"),
        ("a.PNG", "image/png"),
        ("a.ics", "text/calendar"),
        ("a", "application/octet-stream"),
    ],
)
def test_the_media_type_is_guessed_from_the_name(name, media_type):
    found = AttachmentIn.model_validate({"filename": name, "content": "YQ=="}).attachment()
    assert (found.content_type, found.content) == (media_type, b"a")


@pytest.mark.parametrize("field", ["content_id", "inline_content_id"])
def test_a_content_id_is_taken_under_both_names_without_brackets(field):
    found = AttachmentIn.model_validate({"filename": "a", "content": "", field: "<logo@x>"}).attachment()
    assert found.content_id == "logo@x"


def test_a_tag_may_have_no_value():
    assert SendEmail.model_validate({**_MAIL, "tags": [{"name": "a"}]}).draft().tags == (("a", ""),)


def test_the_input_is_never_repeated_in_a_fault():
    secret = "4111111111111111"
    with pytest.raises(ValidationError) as caught:
        SendEmail.model_validate({**_MAIL, "subject": [secret], "html": {"x": secret}, "attachments": secret})
    assert all(secret not in fault.message for fault in faults_of(caught.value, SendEmail))


@pytest.mark.parametrize(
    ("media_type", "content", "told"),
    [
        ("multipart/mixed; boundary=x", b"--x--", "cannot be multipart/mixed"),
        ("Message/Partial", b"A: b\n\nx", "cannot be message/partial"),
        ("message/rfc822", b"no mail", "no mail that can go out"),
        ("message/rfc822", b"A: b\n\n\0", "no mail that can go out"),
    ],
)
def test_a_composite_type_that_could_not_go_out_as_such_is_refused_with_the_remedy(media_type, content, told):
    file = {"filename": "a", "content": base64.b64encode(content).decode(), "content_type": media_type}
    with pytest.raises(ValidationError) as refused:
        SendEmail.model_validate({**_MAIL, "attachments": [file]})
    [found] = faults_of(refused.value, SendEmail)
    assert found.field == "attachments[0].content_type" and found.code == "invalid_content_type"
    assert told in found.message and "application/octet-stream" in found.message


def test_an_attached_mail_is_taken_and_one_of_that_name_alone_goes_as_it_can():
    mail = base64.b64encode(b"Subject: x\n\nhello\n").decode()
    file = {"filename": "a", "content": mail, "content_type": "message/rfc822"}
    assert AttachmentIn.model_validate(file).attachment().content_type == "message/rfc822"
    assert AttachmentIn.model_validate({"filename": "a.eml", "content": "YQ=="}).attachment().content == b"a"
