/* The JSON of an injection: it is refused with an error, or each of its recipients is refused with one, or
 * gets a message whose header has no line end, NUL or control character in a field of somebody else's making,
 * and whose lines all end with CRLF. */
#include "api/inject_batch.h"
#include "base/alloc.h"
#include "base/err.h"
#include "mime/envelope.h"
#include "mime/header.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_RECIPIENTS 20

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(is_so) must_at(is_so, __LINE__)
static void must_at(bool is_so, int line)
{
	if (is_so)
		return;
	fprintf(stderr, "line %d\n", line);
	abort();
}

/* What could end a field early. */
static void check_field(const struct header_field *f)
{
	str_t whole = f->whole;
	must(str_ends(whole, STR("\r\n")) && header_name_is_valid(f->name));
	for (size_t i = 0; i + 2 < whole.n; i++) {
		char c = whole.p[i];
		must(c != 0 && (c != '\n' || (i > 0 && whole.p[i - 1] == '\r')));
		if (c == '\r') /* a fold */
			must(whole.p[i + 1] == '\n' && i + 2 < whole.n &&
			     (whole.p[i + 2] == ' ' || whole.p[i + 2] == '\t'));
	}
}

/* The fields that are there but the caller's own must be those that we write. */
static void check_built(const struct inject_request *req, str_t header)
{
	static const char *const ours[] = {"To",	   "Message-ID",   "From",
					   "Reply-To",	   "Subject",	   "Date",
					   "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
					   "Received"};
	struct header_iter it;
	struct header_field f;
	size_t n = 0;
	header_iter_init(&it, header);
	while (header_next(&it, &f)) {
		bool is_known = false;
		check_field(&f);
		n++;
		for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
			is_known |= str_ieq(f.name, str_of(ours[i]));
		for (size_t i = 0; i < req->build.n_headers; i++)
			is_known |= str_ieq(f.name, req->build.header[i].name);
		must(is_known);
	}
	must(!it.is_malformed && n >= 3 && n <= ARRAY_SIZE(ours) + req->build.n_headers);
}

static void check_message(const struct inject_request *req, const struct message *m)
{
	struct buf all = BUF_INIT;
	buf_add(&all, m->prefix != NULL ? m->prefix : "", m->n_prefix_bytes);
	buf_add(&all, m->body->p, m->body->n_bytes);
	must(all.n == m->size_bytes);
	str_t header = str_head(buf_str(&all), header_section_end(buf_str(&all)));
	must(header.n == 0 || memchr(header.p, 0, header.n) == NULL);
	for (size_t i = 0; i < all.n; i++) {
		must(all.p[i] != '\n' || (i > 0 && all.p[i - 1] == '\r'));
		must(all.p[i] != '\r' || (i + 1 < all.n && all.p[i + 1] == '\n'));
	}
	if (req->text.p == NULL)
		check_built(req, header);
	buf_fini(&all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct inject_request req;
	struct inject_batch batch;
	struct inject_origin origin = {
		.received_from = STR("127.0.0.1"), .who_name = STR("fuzz"), .who_json = NULL};
	int status = inject_request_read(str_mk((const char *)data, size), &req, MONO_NEVER);
	must(status == 0 || status == 400 || status == 422 || status == -1);
	must((status == 0) == (err_kind() == ERR_NONE));
	err_clear();
	if (status != 0)
		return 0;
	if (inject_batch_init(&batch, &req, &origin, MONO_NEVER) != 0) {
		must(err_kind() != ERR_NONE);
	} else {
		for (size_t i = 0; i < req.n_recipients && i < MAX_RECIPIENTS; i++) {
			struct message *m = inject_batch_make(&batch, i);
			must((m != NULL) == (err_kind() == ERR_NONE));
			err_clear();
			if (m != NULL)
				check_message(&req, m);
			message_unref(m);
		}
	}
	err_clear();
	inject_batch_fini(&batch);
	inject_request_fini(&req);
	return 0;
}
