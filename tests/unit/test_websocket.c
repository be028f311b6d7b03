/* test_websocket.c - the frames of a websocket: what becomes a message, what is answered by itself, and what
 * ends it, however the bytes are cut. */
#include "ut.h"

#include "http/websocket_impl.h"

#define M "\0\0\0\0" /* a mask that changes nothing */
#define IN(lit)                      \
	{                            \
		lit, sizeof(lit) - 1 \
	}

static const struct {
	const char *name;
	str_t in;
	const char *messages; /* "T" or "B" and the text of each, parted by '|' */
	str_t out;	      /* what the peer is sent */
	bool has_ended, has_peer_closed;
} cases[] = {
	{"nothing", IN(""), "", IN(""), false, false},
	{"text", IN("\x81\x82" M "{}"), "T{}", IN(""), false, false},
	{"masked", IN("\x81\x82\x01\x02\x03\x04\x7a\x7f"), "T{}", IN(""), false, false},
	{"empty text", IN("\x81\x80" M), "T", IN(""), false, false},
	{"binary", IN("\x82\x81" M "\xff"), "B\xff", IN(""), false, false},
	{"two", IN("\x81\x81" M "a\x82\x81" M "b"), "Ta|Bb", IN(""), false, false},
	{"a length that is longer than need be", IN("\x81\xfe\x00\x03" M "abc"), "", IN("\x88\x00"), true,
	 false},
	{"fragments", IN("\x01\x81" M "a\x00\x80" M "\x80\x81" M "b"), "Tab", IN(""), false, false},
	{"a character in two fragments", IN("\x01\x81" M "\xc3\x80\x81" M "\xa4"), "T\xc3\xa4", IN(""), false,
	 false},
	{"ping", IN("\x89\x81" M "x"), "", IN("\x8a\x01x"), false, false},
	{"ping inside a message", IN("\x01\x81" M "a\x89\x80" M "\x80\x81" M "b"), "Tab", IN("\x8a\x00"),
	 false, false},
	{"pong that nobody has asked for", IN("\x8a\x81" M "x"), "", IN(""), false, false},
	{"close", IN("\x88\x80" M), "", IN("\x88\x00"), true, true},
	{"close with a code",
	 IN("\x88\x85" M "\x03\xe8"
	    "bye"),
	 "",
	 IN("\x88\x05\x03\xe8"
	    "bye"),
	 true, true},
	{"nothing counts after close", IN("\x81\x81" M "a\x88\x80" M "\x81\x81" M "b\x89\x80" M), "Ta",
	 IN("\x88\x00"), true, true},
	{"close with a code that there is not", IN("\x88\x82" M "\x03\xed"), "", IN("\x88\x02\x03\xea"), true,
	 true},
	{"not masked", IN("\x81\x02{}"), "", IN("\x88\x02\x03\xea"), true, false},
	{"reserved bit", IN("\xc1\x82" M "{}"), "", IN("\x88\x02\x03\xea"), true, false},
	{"unknown opcode", IN("\x83\x81" M "x"), "", IN("\x88\x02\x03\xea"), true, false},
	{"continues nothing", IN("\x80\x81" M "x"), "", IN("\x88\x02\x03\xea"), true, false},
	{"a message inside a message", IN("\x01\x81" M "a\x81\x81" M "b"), "", IN("\x88\x02\x03\xea"), true,
	 false},
	{"ping in fragments", IN("\x09\x81" M "x"), "", IN("\x88\x00"), true, false},
	{"ping that is too long", IN("\x89\xfe\x00\x7e" M "x"), "", IN("\x88\x00"), true, false},
	{"no UTF-8", IN("\x81\x82" M "\xc3\x28"), "", IN("\x88\x02\x03\xef"), true, false},
	{"half a character", IN("\x81\x81" M "\xc3"), "", IN("\x88\x02\x03\xef"), true, false},
	{"too long", IN("\x82\xff\x00\x00\x00\x00\x00\x01\x00\x01" M "x"), "", IN("\x88\x02\x03\xf1"), true,
	 false},
	{"much too long", IN("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" M "x"), "", IN("\x88\x02\x03\xf1"),
	 true, false},
	{"a length of 64 bits with the first one set", IN("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" M "x"),
	 "", IN("\x88\x00"), true, false},
};

static void take(struct ws_frames *w, struct buf *messages)
{
	enum websocket_got kind;
	str_t text;
	while (ws_frames_next(w, &kind, &text)) {
		if (messages->n > 0)
			buf_add_c(messages, '|');
		buf_add_c(messages, kind == WEBSOCKET_TEXT ? 'T' : 'B');
		buf_add_str(messages, text);
	}
}

static void test_cases(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (size_t step = 1; step < 40; step++) {
			struct ws_frames w;
			struct buf messages = BUF_INIT;
			ws_frames_init(&w);
			for (str_t rest = cases[i].in; rest.n > 0; rest = str_skip(rest, step)) {
				if (ws_frames_has_ended(&w))
					break;
				ws_frames_feed(&w, str_head(rest, step));
				take(&w, &messages);
			}
			buf_add_z(&messages, "");
			if (!str_eq(buf_str(&messages), str_of(cases[i].messages)) ||
			    !str_eq(buf_str(&w.out), cases[i].out) ||
			    ws_frames_has_ended(&w) != cases[i].has_ended)
				fail_msg("%s, in steps of %zu", cases[i].name, step);
			if (cases[i].has_peer_closed != ws_frames_peer_has_closed(&w) &&
			    strcmp(cases[i].name, "close with a code that there is not") != 0)
				fail_msg("%s: closed by the peer", cases[i].name);
			buf_fini(&messages);
			ws_frames_fini(&w);
		}
	}
}

static void test_what_is_sent(void **state)
{
	struct ws_frames w;
	ws_frames_init(&w);
	ws_frames_add_text(&w, STR("hello"));
	ws_frames_add_ping(&w);
	ws_frames_add_close(&w, WEBSOCKET_GOING_AWAY, STR("bye"));
	ws_frames_add_text(&w, STR("after"));
	ws_frames_add_close(&w, WEBSOCKET_NORMAL, STR("again"));
	assert_true(str_eq(buf_str(&w.out), STR("\x81\x05hello\x89\x00\x88\x05\x03\xe9"
						"bye")));
	assert_false(ws_frames_has_ended(&w)); /* the peer's is still to come */
	ws_frames_feed(&w, STR("\x81\x81" M "a\x88\x80" M));
	struct buf messages = BUF_INIT;
	take(&w, &messages);
	assert_buf_is(&messages, "Ta");
	assert_true(ws_frames_has_ended(&w) && ws_frames_peer_has_closed(&w));
	buf_fini(&messages);
	ws_frames_fini(&w);
}

/* Lengths around those where the header gets longer. */
static void test_long_texts(void **state)
{
	static const size_t lengths[] = {0, 1, 125, 126, 127, 65535, 65536, 1 << 20};
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct ws_frames w;
		struct buf text = BUF_INIT;
		size_t n = lengths[i], n_head = n < 126 ? 2 : n < 65536 ? 4 : 10;
		for (size_t k = 0; k < n; k++)
			buf_add_c(&text, (char)('a' + k % 26));
		ws_frames_init(&w);
		ws_frames_add_text(&w, buf_str(&text));
		assert_int_equal(w.out.n, n_head + n);
		assert_true(str_eq(str_skip(buf_str(&w.out), n_head), buf_str(&text)));
		ws_frames_fini(&w);
		buf_fini(&text);
	}
}

/* The largest message goes through, also in the most fragments; one more of either does not. */
static void test_limits(void **state)
{
	for (int more = 0; more < 2; more++) {
		struct ws_frames w;
		struct buf in = BUF_INIT, messages = BUF_INIT;
		enum websocket_got kind;
		str_t text;
		ws_frames_init(&w);
		for (int i = 0; i < 999 + more; i++)
			buf_add(&in, i == 0 ? "\x02\x80" M : "\x00\x80" M, 6);
		buf_add(&in, "\x80\xff\x00\x00\x00\x00\x00\x01\x00\x00" M, 14);
		for (int i = 0; i < WEBSOCKET_MAX_MESSAGE_BYTES; i++)
			buf_add_c(&in, 'x');
		ws_frames_feed(&w, buf_str(&in));
		assert_int_equal(ws_frames_next(&w, &kind, &text), more == 0);
		if (more == 0)
			assert_int_equal(text.n, WEBSOCKET_MAX_MESSAGE_BYTES);
		assert_int_equal(ws_frames_has_ended(&w), more == 1);
		buf_fini(&in);
		buf_fini(&messages);
		ws_frames_fini(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_what_is_sent),
		cmocka_unit_test(test_long_texts),
		cmocka_unit_test(test_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
