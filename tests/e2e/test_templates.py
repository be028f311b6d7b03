"""Templates in injections, as the recipient gets them. What the languages can do is for tests/unit to show."""
import email
import email.policy

from cirrus import Daemon, policy, smtp_queue, wait_for
from sink import Sink

RECIPIENTS = [
    {"email": "ann@example.org", "name": "Ann", "substitutions": {"items": [{"title": "Salt & Pepper", "price": 2.5}, {"title": "Bread", "price": 3.0}]}},
    {"email": "bob@example.org", "name": "Bob", "substitutions": {"items": []}},
    {"email": "cy@example.org", "substitutions": {"currency": "USD"}},
]


def expanded(where, content, dialect):
    """What each recipient got, by address."""
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port))) as d:
        answer = d.accept(content, RECIPIENTS, template_dialect=dialect, substitutions={"currency": "EUR", "title": "T"})
        assert answer["success_count"] == len(RECIPIENTS), answer
        wait_for("all messages", lambda: len(sink.messages) == len(RECIPIENTS))
        return {m.recipients[0].split("@")[0]: m.data for m in sink.messages}


def test_handlebars_in_a_whole_message(where):
    got = expanded(where, "Subject: {{title}}: {{name}}\r\n\r\nDear {{#if name}}{{name}}{{else}}customer{{/if}},\r\n{{#each items}}\r\n"
                          "{{@index}}. {{title}}: {{price}} {{../currency}}\r\n{{else}}\r\nnothing in {{currency}}\r\n{{/each}}\r\n", "Handlebars")
    assert got["ann"] == b"Subject: T: Ann\r\n\r\nDear Ann,\r\n0. Salt & Pepper: 2.5 EUR\r\n1. Bread: 3 EUR\r\n"
    assert got["bob"] == b"Subject: T: Bob\r\n\r\nDear Bob,\r\nnothing in EUR\r\n"
    assert got["cy"] == b"Subject: T: \r\n\r\nDear customer,\r\nnothing in USD\r\n"


def test_handlebars_escapes_only_in_html(where):
    part = "{{#each items}}{{title}}/{{{title}}} {{/each}}{% not a tag %}"
    got = expanded(where, {"from": {"email": "f@example.com"}, "subject": "{{name}}", "text_body": part, "html_body": part}, "Handlebars")
    m = email.message_from_bytes(got["ann"], policy=email.policy.default)
    texts = {p.get_content_type(): p.get_content().strip() for p in m.walk() if not p.is_multipart()}
    assert m["subject"] == "Ann"
    assert texts["text/plain"] == "Salt & Pepper/Salt & Pepper Bread/Bread {% not a tag %}"
    assert texts["text/html"] == "Salt &amp; Pepper/Salt & Pepper Bread/Bread {% not a tag %}"


def test_static_is_left_alone(where):
    text = "Subject: {{name}}\r\n\r\n{% if %} {{#each}} {{{ \\{{x}}\r\n"
    assert set(expanded(where, text, "Static").values()) == {text.encode()}
