"""The shape of a mail: what becomes of what was asked, without a database."""

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
