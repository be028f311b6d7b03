/* in_data.c - from the wire to the body of a message.
 *
 * A machine of five states reads the bytes. Only CRLF is a line end, and only CRLF.CRLF ends the message,
 * wherever the pieces are cut: a dot between other kinds of line ends is text, whatever becomes of those. So
 * what one server takes for one message cannot be two here ("SMTP smuggling"). A CR or LF that stands alone
 * is denied, kept, or made a CRLF in the stored body; the last is done behind the machine, so that a line end
 * that we have made ends nothing and starts no dot to be removed.
 *
 * A message with a defect is read to its end all the same, since the answer comes only then, but it is not
 * stored any further. */
#include "smtp/in_data.h"

#include <string.h>

void in_data_begin(struct in_data *d, size_t max_bytes, size_t max_line_bytes, enum in_line_endings endings)
{
	*d = (struct in_data){.max_bytes = max_bytes, .max_line_bytes = max_line_bytes, .endings = endings};
}

void in_data_fini(struct in_data *d)
{
	buf_fini(&d->body);
}

bool in_data_is_good(const struct in_data *d)
{
	return !d->has_bad_ending && !d->has_long_line && !d->is_too_big && !d->is_out_of_memory;
}

void in_data_drop(struct in_data *d)
{
	d->is_out_of_memory = true;
	buf_fini(&d->body);
}

static void in_data_store(struct in_data *d, const char *p, size_t n)
{
	d->n_received += n;
	if (!in_data_is_good(d))
		return;
	if (n > d->max_bytes - d->body.n) {
		d->is_too_big = true;
		buf_fini(&d->body);
		return;
	}
	buf_add(&d->body, p, n);
}

/* Bytes of a line, without line ends. */
static void in_data_text(struct in_data *d, const char *p, size_t n)
{
	d->n_line += n;
	if (d->n_line > d->max_line_bytes && !d->has_long_line) {
		d->has_long_line = true;
		buf_fini(&d->body);
	}
	in_data_store(d, p, n);
}

static void in_data_line_end(struct in_data *d)
{
	in_data_store(d, "\r\n", 2);
	d->n_line = 0;
}

/* A CR or LF of its own. */
static void in_data_bare(struct in_data *d, char c)
{
	switch (d->endings) {
	case IN_ENDINGS_DENY:
		d->n_received++;
		if (!d->has_bad_ending)
			buf_fini(&d->body);
		d->has_bad_ending = true;
		break;
	case IN_ENDINGS_ALLOW:
		in_data_store(d, &c, 1);
		break;
	case IN_ENDINGS_FIX:
		in_data_store(d, "\r\n", 2);
		break;
	}
	d->n_line = 0;
}

/* In the middle of a line: everything up to the next CR or LF, and that one. Returns how many bytes. */
static size_t in_data_run(struct in_data *d, str_t in)
{
	const char *lf = memchr(in.p, '\n', in.n);
	size_t n = lf != NULL ? (size_t)(lf - in.p) : in.n;
	const char *cr = memchr(in.p, '\r', n);
	if (cr != NULL)
		n = (size_t)(cr - in.p);
	in_data_text(d, in.p, n);
	if (cr != NULL) {
		d->state = IN_DATA_CR;
		return n + 1;
	}
	if (lf != NULL) {
		in_data_bare(d, '\n');
		return n + 1;
	}
	return n;
}

size_t in_data_feed(struct in_data *d, str_t in, bool *is_done)
{
	size_t i = 0;
	*is_done = false;
	while (i < in.n) {
		char c = in.p[i];
		switch (d->state) {
		case IN_DATA_LINE:
			d->state = c == '.' ? IN_DATA_DOT : IN_DATA_TEXT;
			i += c == '.';
			break;
		case IN_DATA_DOT: /* held back; followed by anything but a CRLF, it was there for transparency
				   */
			d->state = c == '\r' ? IN_DATA_DOT_CR : IN_DATA_TEXT;
			i += c == '\r';
			break;
		case IN_DATA_DOT_CR:
			if (c == '\n') {
				*is_done = true;
				return i + 1;
			}
			in_data_bare(d, '\r');
			d->state = IN_DATA_TEXT;
			break;
		case IN_DATA_CR:
			if (c == '\n') {
				in_data_line_end(d);
				d->state = IN_DATA_LINE;
				i++;
			} else {
				in_data_bare(d, '\r');
				d->state = IN_DATA_TEXT;
			}
			break;
		case IN_DATA_TEXT:
			i += in_data_run(d, str_skip(in, i));
			break;
		}
	}
	return i;
}

void in_data_feed_chunk(struct in_data *d, str_t in)
{
	size_t i = 0;
	while (i < in.n) {
		if (d->state != IN_DATA_CR) {
			d->state = IN_DATA_TEXT;
			i += in_data_run(d, str_skip(in, i));
			continue;
		}
		d->state = IN_DATA_TEXT;
		if (in.p[i] == '\n') {
			in_data_line_end(d);
			i++;
		} else {
			in_data_bare(d, '\r');
		}
	}
}

void in_data_end(struct in_data *d)
{
	if (d->state == IN_DATA_CR)
		in_data_bare(d, '\r');
	d->state = IN_DATA_LINE;
}
