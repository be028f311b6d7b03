/* fuzz_smtp_data.c - the receiver of messages against hostile bytes, cut anywhere.
 *
 * The first two bytes choose the treatment of bare CR and LF, the limits and the
 * cuts. What must hold: the message ends at the first CRLF.CRLF and nowhere else,
 * however the bytes are cut; with defects denied, what is stored has CRLF as its
 * only CR and LF; and it is what a reading of the whole in one piece makes of it. */
#include "smtp/in_data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(cond)                                    \
	do {                                          \
		if (!(cond))                          \
			panic("violated: %s", #cond); \
	} while (0)

static void check_line_ends(str_t body)
{
	for (size_t i = 0; i < body.n; i++) {
		if (body.p[i] == '\n')
			MUST(i > 0 && body.p[i - 1] == '\r');
		if (body.p[i] == '\r')
			MUST(i + 1 < body.n && body.p[i + 1] == '\n');
	}
}

static bool is_same(const struct in_data *a, const struct in_data *b)
{
	return in_data_is_good(a) == in_data_is_good(b) && a->n_received == b->n_received &&
	       str_eq(buf_str(&a->body), buf_str(&b->body));
}

static void check_data(str_t in, const struct in_data *begin, size_t n_step)
{
	struct in_data whole = *begin, pieces = *begin;
	struct buf all = BUF_INIT;
	bool is_done, is_done_too = false;
	size_t used = in_data_feed(&whole, in, &is_done), n_fed = 0;
	buf_add_z(&all, "\r\n");
	buf_add_str(&all, in);
	ptrdiff_t end = str_find(buf_str(&all), STR("\r\n.\r\n"));
	MUST(is_done == (end >= 0));
	MUST(used == (is_done ? (size_t)end + 3 : in.n));
	while (!is_done_too && n_fed < in.n)
		n_fed += in_data_feed(&pieces, str_head(str_skip(in, n_fed), n_step), &is_done_too);
	MUST(is_done_too == is_done && n_fed == used && is_same(&whole, &pieces));
	if (is_done && in_data_is_good(&whole) && whole.endings != IN_ENDINGS_ALLOW)
		check_line_ends(buf_str(&whole.body));
	MUST(whole.body.n <= whole.max_bytes && (in_data_is_good(&whole) || whole.body.n == 0));
	buf_fini(&all);
	in_data_fini(&whole);
	in_data_fini(&pieces);
}

static void check_chunks(str_t in, const struct in_data *begin, size_t n_step)
{
	struct in_data whole = *begin, pieces = *begin;
	in_data_feed_chunk(&whole, in);
	in_data_end(&whole);
	for (str_t rest = in; rest.n > 0; rest = str_skip(rest, n_step))
		in_data_feed_chunk(&pieces, str_head(rest, n_step));
	in_data_end(&pieces);
	MUST(is_same(&whole, &pieces));
	if (in_data_is_good(&whole) && whole.endings != IN_ENDINGS_ALLOW)
		check_line_ends(buf_str(&whole.body));
	if (in_data_is_good(&whole) && whole.endings == IN_ENDINGS_ALLOW)
		MUST(str_eq(buf_str(&whole.body), in) || in.n == 0);
	in_data_fini(&whole);
	in_data_fini(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct in_data begin;
	if (n < 2)
		return 0;
	size_t max_bytes = data[0] & 0x40 ? 16 : 100000, max_line = data[0] & 0x20 ? 5 : 998,
	       n_step = (size_t)data[1] + 1;
	in_data_begin(&begin, max_bytes, max_line, (enum in_line_endings)(data[0] % 3));
	str_t in = str_mk((const char *)data + 2, n - 2);
	check_data(in, &begin, n_step);
	check_chunks(in, &begin, n_step);
	return 0;
}
