"""/docs in a real browser, without the Internet: the page draws itself and breaks no policy of ours."""

import pytest

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_docs_show_every_endpoint_without_the_internet(open_page, live_server):
    page, complaints = open_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{live_server.url}/docs")
    page.get_by_text("Where is this mail?").wait_for()
    page.get_by_text("Send a mail", exact=True).click()
    page.get_by_text("Answered only after the mail is on disk.").first.wait_for()
    page.get_by_role("button", name="Try it out").wait_for()
    tone = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(tone) == "rgb(250, 250, 250)"
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{tone} === 'rgb(28, 32, 34)'")
    assert complaints == []
    elsewhere = [url for url in asked if not url.startswith((live_server.url, "data:"))]
    assert elsewhere == []
