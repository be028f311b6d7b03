/* fuzz_websocket.c - what a websocket's client sends, from hostile bytes; the first byte says in which steps
 * they arrive.
 *
 * What must hold: the messages do not depend on how the bytes are cut; no message is longer than it may be;
 * text is UTF-8; and what is answered is whole frames, with a close as the last of them exactly if it has
 * ended. (The answers themselves may depend on it: wslay lets a close overtake the pongs that are waiting,
 * and looks at the reason of a close, which is the end anyhow, piece by piece.) */
#include "http/websocket_impl.h"

#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(cond)                                    \
	do {                                          \
		if (!(cond))                          \
			panic("violated: %s", #cond); \
	} while (0)

static void fuzz_feed(struct ws_frames *w, str_t in, size_t step, struct buf *messages)
{
	enum websocket_got kind;
	str_t text;
	for (; in.n > 0 && !ws_frames_has_ended(w); in = str_skip(in, step)) {
		ws_frames_feed(w, str_head(in, step));
		while (ws_frames_next(w, &kind, &text)) {
			MUST(text.n <= WEBSOCKET_MAX_MESSAGE_BYTES);
			MUST(kind == WEBSOCKET_BINARY || (kind == WEBSOCKET_TEXT && str_is_utf8(text)));
			buf_printf(messages, "%d %zu ", kind, text.n);
			buf_add_str(messages, text);
		}
	}
}

/* Whole, unmasked control frames; after a close, nothing. */
static void fuzz_check_out(str_t out, bool has_ended)
{
	bool has_closed = false;
	while (out.n > 0) {
		MUST(!has_closed && out.n >= 2);
		uint8_t op = (uint8_t)out.p[0], len = (uint8_t)out.p[1];
		MUST((op == 0x88 || op == 0x8a) && len <= 125 && out.n >= 2u + len);
		has_closed = op == 0x88;
		out = str_skip(out, 2u + len);
	}
	MUST(has_closed == has_ended);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct ws_frames whole, cut;
	struct buf messages = BUF_INIT, again = BUF_INIT;
	if (n < 2)
		return 0;
	str_t in = str_mk((const char *)data + 1, n - 1);
	ws_frames_init(&whole);
	ws_frames_init(&cut);
	fuzz_feed(&whole, in, in.n, &messages);
	fuzz_feed(&cut, in, data[0] % 64 + 1u, &again);
	MUST(str_eq(buf_str(&messages), buf_str(&again)));
	fuzz_check_out(buf_str(&whole.out), ws_frames_has_ended(&whole));
	fuzz_check_out(buf_str(&cut.out), ws_frames_has_ended(&cut));
	ws_frames_fini(&whole);
	ws_frames_fini(&cut);
	buf_fini(&messages);
	buf_fini(&again);
	return 0;
}
