/* in_receive.c - DATA and BDAT: the bytes of a message from the client to the receiver (in_data.c).
 *
 * A client has client_timeout for each piece, and for the whole the time that it takes at the slowest rate
 * that is put up with. What messages take in memory meanwhile is bounded for all sessions together; over the
 * bound a message is read and refused for now. The bytes of a chunk follow their command whether we want them
 * or not (RFC 3030), so they are read in any case, or the session ends. */
#include "smtp/in_impl.h"

#define IN_SLOW_TIMEOUT dur_s(600)
enum {
	IN_SLOW_BYTES_PER_S = 1024,
	IN_CHUNK_MARGIN = 1 << 20, /* that a chunk may be larger than a message, and still be read */
};

static void in_charge(struct in_session *s)
{
	struct in_transaction *t = &s->tx;
	if (t->data.body.cap > t->n_charged) {
		size_t n = t->data.body.cap - t->n_charged;
		if (in_memory_take(n))
			t->n_charged += n;
		else
			in_data_drop(&t->data);
	}
	if (t->data.body.cap < t->n_charged) {
		in_memory_give(t->n_charged - t->data.body.cap);
		t->n_charged = t->data.body.cap;
	}
}

static enum in_go in_fill_data(struct in_session *s, mono_t begun)
{
	dur_t for_all = IN_SLOW_TIMEOUT;
	for_all.ns += dur_s((int64_t)(s->tx.data.n_received / IN_SLOW_BYTES_PER_S)).ns;
	return in_fill(s, s->set.data_buffer_size,
		       mono_min(mono_after(s->set.client_timeout), mono_add(begun, for_all)));
}

static void in_see_data(struct in_session *s, str_t piece)
{
	if (in_is_seen())
		in_see(s, &(struct in_seen){.kind = IN_SIGHT_READ, .text = piece});
}

static void in_begin_data(struct in_session *s)
{
	s->tx.data_begun = mono_now();
	in_data_begin(&s->tx.data, s->set.max_message_size, s->set.line_length_hard_limit,
		      s->set.invalid_line_endings);
}

/* --- DATA --- */

static enum in_go in_receive(struct in_session *s)
{
	mono_t begun = mono_now();
	bool is_done = false;
	stream_set_read_bytes(s->st, s->set.data_buffer_size);
	while (!is_done) {
		str_t in = stream_buffered(s->st);
		if (in.n == 0) {
			if (in_fill_data(s, begun) != IN_GO)
				return IN_END;
			continue;
		}
		size_t used = in_data_feed(&s->tx.data, in, &is_done);
		in_see_data(s, str_head(in, used));
		stream_consume(s->st, used);
		in_charge(s);
	}
	stream_set_read_bytes(s->st, 0);
	return IN_GO;
}

/* True: the client was told that no message can come now.
 * One that has begun is not stopped by what stops new ones. */
static bool in_message_is_refused(struct in_session *s)
{
	if (!s->tx.is_open)
		(void)in_out_of_order(s, "5.5.0 MAIL FROM must be issued first");
	else if (s->tx.n_rcpt == 0)
		(void)in_out_of_order(s, "5.5.0 RCPT TO must be issued first");
	else
		return false;
	return true;
}

enum in_go in_on_data(struct in_session *s)
{
	if (s->tx.is_chunking)
		return in_out_of_order(s, "5.5.0 DATA cannot follow BDAT");
	if (in_message_is_refused(s))
		return IN_GO;
	in_reply(s, 354, "Send the message; end with CRLF.CRLF");
	if (s->is_ending)
		return IN_END;
	in_begin_data(s);
	if (in_receive(s) != IN_GO)
		return IN_END;
	in_transaction_end(s);
	return IN_GO;
}

/* --- BDAT --- */

/* Reads a chunk, and hands it to the receiver unless it is to be dropped. */
static enum in_go in_receive_chunk(struct in_session *s, uint64_t n_bytes, bool is_dropped)
{
	mono_t begun = mono_now();
	stream_set_read_bytes(s->st, s->set.data_buffer_size);
	while (n_bytes > 0) {
		str_t in = stream_buffered(s->st);
		if (in.n == 0) {
			if (in_fill_data(s, begun) != IN_GO)
				return IN_END;
			continue;
		}
		in = str_head(in, n_bytes < in.n ? (size_t)n_bytes : in.n);
		if (!is_dropped) {
			in_data_feed_chunk(&s->tx.data, in);
			in_charge(s);
		}
		in_see_data(s, in);
		n_bytes -= in.n;
		stream_consume(s->st, in.n);
	}
	stream_set_read_bytes(s->st, 0);
	return IN_GO;
}

/* A chunk that is not wanted is read, and the transaction is over. */
static enum in_go in_refuse_chunk(struct in_session *s, const struct in_command *c)
{
	enum in_go go = in_receive_chunk(s, c->chunk_bytes, true);
	if (go == IN_GO)
		(void)in_message_is_refused(s);
	in_transaction_reset(s);
	return go;
}

enum in_go in_on_bdat(struct in_session *s, const struct in_command *c)
{
	if (c->chunk_bytes > s->set.max_message_size + IN_CHUNK_MARGIN) {
		in_reply(s, 552, "5.3.4 message too big");
		in_reply(s, 421, "4.7.0 %s does not read a chunk of that size", s->set.hostname);
		return IN_END;
	}
	if (!s->tx.is_open || s->tx.n_rcpt == 0)
		return in_refuse_chunk(s, c);
	if (!s->tx.is_chunking)
		in_begin_data(s);
	s->tx.is_chunking = true;
	if (in_receive_chunk(s, c->chunk_bytes, false) != IN_GO)
		return IN_END;
	if (c->is_last) {
		in_data_end(&s->tx.data);
		in_transaction_end(s);
	} else if (in_transaction_refuse_data(s)) {
		in_transaction_reset(s);
	} else {
		in_reply(s, 250, "2.0.0 %llu octets received", (unsigned long long)c->chunk_bytes);
	}
	return IN_GO;
}
