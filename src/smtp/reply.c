/* reply.c - reading SMTP answers: lines of a three-digit code, '-' on all but the last, and text. A peer that
 * sends without end is cut off by the size limit, one that sends nothing by the deadline. */
#include "smtp/reply.h"

#include "base/err.h"

#define MAX_LINE_BYTES 4096 /* RFC 5321 section 4.5.3.1.5 asks for 512; real ones are longer */
#define MAX_REPLY_BYTES 65536

void smtp_reply_fini(struct smtp_reply *r)
{
	buf_fini(&r->text);
}

static int reply_line_code(str_t line)
{
	if (line.n < 3)
		return -1;
	for (int i = 0; i < 3; i++)
		if (line.p[i] < '0' || line.p[i] > '9')
			return -1;
	int code = (line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + (line.p[2] - '0');
	if (code < 200 || code > 599 || (line.n > 3 && line.p[3] != ' ' && line.p[3] != '-'))
		return -1;
	return code;
}

/** Length of the enhanced status code that text begins with, "5.1.1 text" (RFC 2034 section 4, RFC 3463
 * section 2), when its class fits the code of the answer; else 0. */
static size_t enhanced_prefix(str_t text, int code, int part[3])
{
	str_t rest = text;
	int found[3];
	for (int i = 0; i < 3; i++) {
		size_t n = 0;
		int v = 0;
		while (n < rest.n && n < 3 && rest.p[n] >= '0' && rest.p[n] <= '9')
			v = v * 10 + (rest.p[n++] - '0');
		if (n == 0)
			return 0;
		found[i] = v;
		rest = str_skip(rest, n);
		if (i < 2) {
			if (rest.n == 0 || rest.p[0] != '.')
				return 0;
			rest = str_skip(rest, 1);
		}
	}
	if ((found[0] != 2 && found[0] != 4 && found[0] != 5) || found[0] != code / 100 ||
	    (rest.n > 0 && rest.p[0] != ' ' && rest.p[0] != '\n'))
		return 0;
	memcpy(part, found, sizeof(found));
	return text.n - rest.n;
}

/** The text of a further line without the enhanced status code of the first one, which each line repeats. */
static str_t reply_continuation(const struct smtp_reply *r, str_t text)
{
	int first[3], here[3];
	size_t n = enhanced_prefix(text, r->code, here);
	if (n == 0 || enhanced_prefix(buf_str(&r->text), r->code, first) == 0 ||
	    memcmp(first, here, sizeof(first)) != 0)
		return text;
	return str_skip(text, n + 1);
}

int smtp_reply_add_line(struct smtp_reply *r, str_t line, bool is_first)
{
	int code = reply_line_code(line);
	if (code < 0 || (!is_first && code != r->code)) {
		err_set(ERR_PROTO, "malformed response `" STR_FMT "`", STR_ARG(str_head(line, 128)));
		return -1;
	}
	if (r->text.n + line.n > MAX_REPLY_BYTES) {
		err_set(ERR_PROTO, "response is longer than %d bytes", MAX_REPLY_BYTES);
		return -1;
	}
	str_t text = str_skip(line, 4);
	if (is_first) {
		buf_clear(&r->text);
	} else {
		text = reply_continuation(r, text);
		buf_add_c(&r->text, '\n');
	}
	r->code = code;
	buf_add_str(&r->text, text);
	return line.n == 3 || line.p[3] == ' ' ? 1 : 0;
}

int smtp_reply_read(struct stream *st, struct smtp_reply *r, mono_t deadline)
{
	int rc = 0;
	for (bool is_first = true; rc == 0; is_first = false) {
		str_t line;
		rc = stream_read_line(st, &line, MAX_LINE_BYTES, deadline);
		if (rc == 0)
			err_set(ERR_CLOSED, "Connection closed by peer");
		if (rc <= 0)
			return -1;
		rc = smtp_reply_add_line(r, line, is_first);
	}
	return rc < 0 ? -1 : 0;
}

static void response_split_enhanced(struct smtp_response *r)
{
	size_t n = enhanced_prefix(r->content, r->code, r->enhanced);
	if (n > 0)
		r->content = str_skip(r->content, n + 1);
}

struct smtp_response smtp_response_split(int code, str_t text, str_t command)
{
	struct smtp_response out = {.code = code, .content = text, .command = command};
	response_split_enhanced(&out);
	return out;
}

struct smtp_response smtp_reply_response(const struct smtp_reply *r, str_t command)
{
	return smtp_response_split(r->code, buf_str(&r->text), command);
}
