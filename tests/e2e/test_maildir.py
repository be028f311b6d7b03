"""Delivery into maildirs."""
import os
import stat

from cirrus import Daemon, Maildir, policy, wait_for


def maildir_policy(where, path, more="", extra="", queue=""):
    return policy(where, f"{queue} protocol = {{ maildir_path = '{path}', {more} }}", extra=extra)


def test_byte_for_byte(where):
    content = "Subject: local\r\n\r\n.dot\r\n..\r\nlast line\r\n"
    with Daemon(where, maildir_policy(where, where / "mail")) as d:
        d.accept(content)
        m, = wait_for("the message", Maildir(where / "mail").messages)
        assert m == content.encode()
        r, = d.wait_record("Delivery")
        name, = os.listdir(where / "mail" / "new")
        assert r["response"]["code"] == 200 and r["response"]["content"] == f"r@example.org: wrote to maildir with id={name}"
        assert r["delivery_protocol"] == "Maildir" and r["peer_address"] is None and r["site"] == ""
        assert f",S={len(content)}" in name
        assert os.listdir(where / "mail" / "tmp") == []


def test_path_template_and_modes(where):
    path = str(where / "m") + "/{{ domain_part }}/{{ local_part }}"
    text = maildir_policy(where, path, "dir_mode = tonumber('750', 8), file_mode = tonumber('640', 8)")
    with Daemon(where, text) as d:
        d.accept(to=["ann@example.org", "bob@example.net"])
        d.wait_record("Delivery", 2)
        for who in ("example.org/ann", "example.net/bob"):
            new = where / "m" / who / "new"
            name, = os.listdir(new)
            assert stat.S_IMODE(os.stat(new).st_mode) == 0o750
            assert stat.S_IMODE(os.stat(new / name).st_mode) == 0o640


def test_an_address_cannot_climb_out(where):
    """A slash in an address is no separator; other values may have some, but no step up."""
    path = str(where / "m") + "/{{ meta.tenant }}/{{ local_part }}"
    extra = """kumo.on('http_message_generated', function(msg)
  msg:set_meta('tenant', msg:recipient().user == 'bad' and '..' or 'a/b')
end)"""
    with Daemon(where, maildir_policy(where, path, extra=extra, queue="retry_interval = '1h',")) as d:
        d.accept(to=['"../../evil"@example.org', "ann/new/evil@example.org", "bad@example.org"])
        d.wait_record("Delivery", 2)
        r, = d.wait_record("TransientFailure")
        assert r["recipient"] == "bad@example.org"
        assert r["response"]["code"] == 400 and "no usable path" in r["response"]["content"]
    assert sorted(os.listdir(where / "m")) == ["a"]
    assert sorted(os.listdir(where / "m/a/b")) == ['"..%2F..%2Fevil"', "ann%2Fnew%2Fevil"]


def test_unwritable_maildir_is_retried(where):
    (where / "blocked").write_text("a file where a directory should be")
    with Daemon(where, maildir_policy(where, where / "blocked" / "mail", queue="retry_interval = '1s',")) as d:
        d.accept()
        r = d.wait_record("TransientFailure", 2)[0]
        assert "failed to write to maildir" in r["response"]["content"]
        os.unlink(where / "blocked")
        d.wait_record("Delivery")


def test_many_at_once(where):
    with Daemon(where, maildir_policy(where, where / "mail")) as d:
        d.accept(to=[f"r{i}@example.org" for i in range(500)])
        wait_for("all", lambda: len(Maildir(where / "mail").messages()) == 500)
