/* tls_stream.c - the transport of an encrypted stream, and the handshake that puts it there.
 *
 * OpenSSL moves its bytes through a BIO whose two functions are those of stream_tcp.c, so that what holds for
 * plain sockets holds here: no waiting, no SIGPIPE, no useless system call after a short read, and a turn of
 * the loop for the others now and then. A BIO that would block makes OpenSSL ask for reading or writing,
 * which is what the stream's loop waits for before it calls again. One fiber may read while another one
 * writes: between two calls into OpenSSL the SSL object is at rest, and no call is interrupted, since none
 * yields.
 *
 * OpenSSL's error queue is the thread's: it is emptied before each call and read right after it.
 *
 * Writing. One call makes one record of up to 16 KB; pieces are gathered in a block of the worker's first. A
 * record that was encrypted but could not be sent is OpenSSL's to send at the next call, which must bring the
 * same bytes: stream_writev does. When it gives up instead (a deadline), the stream cannot be written any
 * more (stream.is_write_cut): OpenSSL would take the next call's bytes for the old ones.
 *
 * Ending. A peer that closes without close_notify has cut the stream off: that is an error, not the end of
 * input. Our own close_notify goes out in stream_goodbye and stream_shutdown_write only; a stream that is
 * freed without it looks cut off to the peer, as it should. A handshake that fails gives the stream back in
 * the clear: opportunistic TLS may go on. */
#include "net/tls_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/fault.h"
#include "net/dns_impl.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>

#define TLS_RECORD_BYTES 16384 /* RFC 8446 section 5.1 */

static const struct stream_ops stream_tls_ops;

/* --- the BIO --- */

static int tls_bio_read(BIO *bio, char *p, int n_bytes)
{
	struct stream *st = BIO_get_data(bio);
	struct tls *t = st->tls;
	int events;
	BIO_clear_retry_flags(bio);
	if (t->fed != NULL) {
		size_t n_left = t->n_fed - t->fed_off,
		       n = n_left < (size_t)n_bytes ? n_left : (size_t)n_bytes;
		memcpy(p, t->fed + t->fed_off, n);
		t->fed_off += n;
		if (t->fed_off == t->n_fed) {
			free(t->fed);
			t->fed = NULL;
		}
		return (int)n;
	}
	ssize_t n = stream_tcp_ops.read(st, p, (size_t)n_bytes, &events);
	if (n > 0)
		return (int)n;
	if (n == 0)
		t->is_eof = true;
	else if (n == -EAGAIN)
		BIO_set_retry_read(bio);
	else
		t->sys_errno = (int)-n;
	return n == 0 ? 0 : -1;
}

static int tls_bio_write(BIO *bio, const char *p, int n_bytes)
{
	struct stream *st = BIO_get_data(bio);
	struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = (size_t)n_bytes};
	int events;
	BIO_clear_retry_flags(bio);
	ssize_t n = stream_tcp_ops.write(st, &iov, 1, &events);
	if (n >= 0)
		return (int)n;
	if (n == -EAGAIN)
		BIO_set_retry_write(bio);
	else
		st->tls->sys_errno = (int)-n;
	return -1;
}

static long tls_bio_ctrl(BIO *bio, int what, long n, void *p)
{
	return what == BIO_CTRL_FLUSH; /* nothing is held back */
}

static BIO_METHOD *tls_bio_method;

static void tls_bio_method_make(void)
{
	tls_bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
	if (tls_bio_method == NULL || BIO_meth_set_read(tls_bio_method, tls_bio_read) != 1 ||
	    BIO_meth_set_write(tls_bio_method, tls_bio_write) != 1 ||
	    BIO_meth_set_ctrl(tls_bio_method, tls_bio_ctrl) != 1)
		panic("OpenSSL takes no BIO of ours: %s", tls_take_reason());
}

static BIO *tls_bio_new(struct stream *st)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, tls_bio_method_make);
	BIO *bio = BIO_new(tls_bio_method);
	if (bio == NULL)
		panic("out of memory in OpenSSL");
	BIO_set_data(bio, st);
	BIO_set_init(bio, 1);
	return bio;
}

/* --- the state --- */

static void tls_free(struct tls *t)
{
	if (t == NULL)
		return;
	if (t->ssl != NULL &&
	    !t->is_broken) /* or OpenSSL would forbid to resume a session that was cut off */
		SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(t->ssl);
	tls_info_fini(&t->info);
	tls_context_unref(t->context);
	free(t->fed);
	free(t->session_name);
	free(t->why);
	free(t);
	ERR_clear_error();
}

static struct tls *tls_new(struct stream *st, struct tls_context *context)
{
	struct tls *t = xnew(struct tls);
	ERR_clear_error();
	t->context = context;
	t->ssl = SSL_new(context->ctx);
	if (t->ssl == NULL)
		panic("out of memory in OpenSSL: %s", tls_take_reason());
	BIO *bio = tls_bio_new(st);
	SSL_set_bio(t->ssl, bio, bio);
	SSL_set_app_data(t->ssl, t);
	return t;
}

static void tls_say_why(struct tls *t, enum err_kind kind, const char *text)
{
	free(t->why);
	t->why = xstrdup(text);
	t->why_kind = kind;
}

/* The result of an OpenSSL call that did not succeed, as a transport's: 0 at the end of input, or a negated
 * errno, where EPROTO stands for `why`. */
static ssize_t tls_result(struct tls *t, int rc, int *events)
{
	char text[256];
	int e = SSL_get_error(t->ssl, rc);
	*events = UV_READABLE;
	switch (e) {
	case SSL_ERROR_WANT_READ:
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		*events = UV_WRITABLE;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		break;
	}
	if (t->sys_errno != 0) {
		t->is_broken = true;
		ERR_clear_error();
		tls_say_why(t, ERR_CLOSED, strerror_r(t->sys_errno, text, sizeof(text)));
		return -t->sys_errno;
	}
	if (t->is_eof) { /* what we send may still arrive */
		ERR_clear_error();
		tls_say_why(t, ERR_CLOSED, "the connection was closed without a TLS close_notify");
		return -EPROTO;
	}
	t->is_broken = true;
	long verdict = SSL_get_verify_result(t->ssl);
	const char *reason = tls_take_reason();
	bool is_verdict = !t->context->is_unverified && verdict != X509_V_OK && SSL_in_init(t->ssl);
	snprintf(text, sizeof(text), "TLS: %s%s%s", reason, is_verdict ? ": " : "",
		 is_verdict ? X509_verify_cert_error_string(verdict) : "");
	tls_say_why(t, ERR_PROTO, text);
	return -EPROTO;
}

/* --- the transport --- */

static ssize_t tls_read(struct stream *st, void *p, size_t n_bytes, int *events)
{
	struct tls *t = st->tls;
	size_t n;
	if (t->is_broken)
		return -EPROTO;
	ERR_clear_error();
	int rc = SSL_read_ex(t->ssl, p, n_bytes, &n);
	if (rc == 1)
		return (ssize_t)n;
	ssize_t r = tls_result(t, rc, events);
	if (r == -EAGAIN)
		SSL_free_buffers(
			t->ssl); /* the empty ones; tickets leave one behind that only a write would free */
	return r;
}

/* The first record's worth of iov in one piece. */
static const char *tls_gather(const struct iovec *iov, int n_iov, size_t *n_bytes)
{
	static __thread char piece[TLS_RECORD_BYTES];
	size_t n = 0;
	if (n_iov == 1 || iov->iov_len >= TLS_RECORD_BYTES) {
		*n_bytes = iov->iov_len < TLS_RECORD_BYTES ? iov->iov_len : TLS_RECORD_BYTES;
		return iov->iov_base;
	}
	for (int i = 0; i < n_iov && n < TLS_RECORD_BYTES; i++) {
		size_t n_room = TLS_RECORD_BYTES - n,
		       n_step = iov[i].iov_len < n_room ? iov[i].iov_len : n_room;
		if (n_step > 0)
			memcpy(piece + n, iov[i].iov_base, n_step);
		n += n_step;
	}
	*n_bytes = n;
	return piece;
}

static ssize_t tls_write(struct stream *st, const struct iovec *iov, int n_iov, int *events)
{
	struct tls *t = st->tls;
	size_t n_bytes, n;
	if (st->is_write_cut || t->has_said_goodbye) {
		tls_say_why(t, ERR_CLOSED,
			    t->has_said_goodbye ? "the stream's end has been sent"
						: "an earlier write was cut short");
		return -EPROTO;
	}
	if (t->is_broken)
		return -EPROTO;
	const char *p = tls_gather(iov, n_iov, &n_bytes);
	ERR_clear_error();
	int rc = SSL_write_ex(t->ssl, p, n_bytes, &n);
	if (rc == 1)
		return (ssize_t)n;
	ssize_t r = tls_result(t, rc, events);
	return r == 0 ? -EPIPE : r;
}

/* Looks below tickets and other messages of TLS itself, which are no input. */
static bool tls_has_input(struct stream *st)
{
	struct tls *t = st->tls;
	char c;
	size_t n;
	int events;
	if (t->is_broken)
		return true;
	st->is_drained = false; /* ask the kernel in any case */
	st->n_reads = 0;
	ERR_clear_error();
	int rc = SSL_peek_ex(t->ssl, &c, 1, &n);
	return rc == 1 || tls_result(t, rc, &events) != -EAGAIN;
}

static ssize_t tls_goodbye(struct stream *st, int *events)
{
	struct tls *t = st->tls;
	if (t->is_broken || t->has_said_goodbye || st->is_write_cut)
		return 0;
	ERR_clear_error();
	int rc = SSL_shutdown(t->ssl);
	if (rc < 0) {
		ssize_t r = tls_result(t, rc, events);
		if (r == -EAGAIN && *events == UV_WRITABLE)
			return r;
		if (r < 0 && r != -EAGAIN)
			return r;
	}
	t->has_said_goodbye = true; /* a second call would wait for the peer's */
	return 0;
}

static void tls_shutdown_write(struct stream *st)
{
	int events;
	(void)tls_goodbye(st, &events); /* what does not fit into the socket at once stays unsaid */
	stream_tcp_ops.shutdown_write(st);
}

static bool tls_fail(const struct stream *st, const char *what)
{
	char peer[NET_ADDR_STRLEN];
	const struct tls *t = st->tls;
	if (t->why == NULL)
		return false;
	err_set(t->why_kind, "%s %s: %s", what, net_addr_fmt(&st->peer, peer), t->why);
	return true;
}

static void tls_close(struct stream *st)
{
	tls_free(st->tls);
	st->tls = NULL;
	stream_tcp_ops.close(st);
}

static const struct stream_ops stream_tls_ops = {
	.read = tls_read,
	.write = tls_write,
	.has_input = tls_has_input,
	.shutdown_write = tls_shutdown_write,
	.goodbye = tls_goodbye,
	.fail = tls_fail,
	.close = tls_close,
};

const struct tls_info *stream_tls_info(const struct stream *st)
{
	return st->tls != NULL && st->ops == &stream_tls_ops ? &st->tls->info : NULL;
}

/* --- the handshake --- */

static int tls_shake_hands(struct stream *st, mono_t deadline)
{
	struct tls *t = st->tls;
	int events;
	for (;;) {
		ERR_clear_error();
		int rc = SSL_do_handshake(t->ssl);
		if (rc == 1)
			return 0;
		ssize_t r = tls_result(t, rc, &events);
		if (r != -EAGAIN) {
			if (r == 0)
				tls_say_why(t, ERR_CLOSED, "the connection was closed");
			tls_fail(st, "the TLS handshake with");
			return -1;
		}
		if (stream_wait(st, events == UV_READABLE ? SOCK_READER : SOCK_WRITER, events, deadline) !=
		    0) {
			err_wrap("the TLS handshake");
			return -1;
		}
	}
}

/* A resumed session is not looked at again by OpenSSL; its certificate may have ended since. */
static int tls_check_resumed(struct stream *st)
{
	char peer[NET_ADDR_STRLEN];
	wall_t to;
	X509 *x = SSL_get0_peer_certificate(st->tls->ssl);
	if (x == NULL || SSL_session_reused(st->tls->ssl) != 1 || !tls_time(X509_get0_notAfter(x), &to) ||
	    to.ns > wall_now().ns)
		return 0;
	err_set(ERR_PROTO, "the TLS handshake with %s: the certificate of its session has expired",
		net_addr_fmt(&st->peer, peer));
	return -1;
}

static int tls_take_buffered(struct stream *st, struct tls *t, enum tls_buffered buffered)
{
	char peer[NET_ADDR_STRLEN];
	str_t in = stream_buffered(st);
	if (in.n > 0 && buffered == TLS_BUFFERED_REFUSE) {
		err_set(ERR_PROTO, "%s sent %zu bytes in the clear where TLS has to begin",
			net_addr_fmt(&st->peer, peer), in.n);
		return -1;
	}
	if (in.n > 0 && buffered == TLS_BUFFERED_FEED) {
		t->fed = st->in;
		t->fed_off = st->in_off;
		t->n_fed = st->in_n;
	} else {
		free(st->in);
	}
	st->in = NULL;
	st->in_off = st->in_n = st->in_cap = 0;
	return 0;
}

/* Takes t. */
static int tls_start(struct stream *st, struct tls *t, bool is_server, enum tls_buffered buffered,
		     mono_t deadline)
{
	if (tls_take_buffered(st, t, buffered) != 0) {
		tls_free(t);
		return -1;
	}
	st->tls = t;
	const char *before = fiber_set_waits_for("a TLS handshake");
	int rc = tls_shake_hands(st, deadline);
	fiber_set_waits_for(before);
	if (rc == 0 && !t->context->is_unverified)
		rc = tls_check_resumed(st);
	if (rc != 0) {
		st->tls = NULL;
		t->is_broken = true;
		tls_free(t);
		return -1;
	}
	tls_info_fill(&t->info, t->ssl, is_server);
	st->ops = &stream_tls_ops;
	return 0;
}

static int tls_check_start(const struct stream *st)
{
	char peer[NET_ADDR_STRLEN];
	if (FAULT(tls)) {
		err_set(ERR_PROTO, "the TLS handshake with %s: fault", net_addr_fmt(&st->peer, peer));
		return -1;
	}
	if (st->tls == NULL)
		return 0;
	err_set(ERR_INVALID, "the stream with %s uses TLS already", net_addr_fmt(&st->peer, peer));
	return -1;
}

int stream_start_tls_server(struct stream *st, struct tls_server *srv, enum tls_buffered buffered,
			    mono_t deadline)
{
	if (tls_check_start(st) != 0)
		return -1;
	struct tls *t = tls_new(st, tls_server_context(srv));
	SSL_set_accept_state(t->ssl);
	return tls_start(st, t, true, buffered, deadline);
}

/* SNI takes names only (RFC 6066 section 3); a certificate is compared with whichever it is. */
static int tls_set_server_name(struct tls *t, const char *server_name)
{
	char host[DNS_NAME_BYTES];
	struct net_addr ip;
	X509_VERIFY_PARAM *param = SSL_get0_param(t->ssl);
	if (net_addr_parse_ip(str_of(server_name), 0, &ip) == 0) {
		char text[NET_ADDR_STRLEN];
		X509_VERIFY_PARAM_set1_ip_asc(param, net_addr_fmt_ip(&ip, text));
		return 0;
	}
	if (dns_name_normalize(str_of(server_name), host) != 0)
		return -1;
	err_clear();
	SSL_set_hostflags(t->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (SSL_set1_host(t->ssl, host) == 1 && SSL_set_tlsext_host_name(t->ssl, host) == 1)
		return 0;
	err_set(ERR_INVALID, "`%s` is no server name for TLS: %s", host, tls_take_reason());
	return -1;
}

static void tls_set_session(struct tls *t, const char *server_name)
{
	if (t->context->sessions == NULL || server_name == NULL)
		return;
	t->session_name = xstrdup(server_name);
	SSL_SESSION *s = tls_sessions_take(t->context->sessions, server_name);
	if (s == NULL)
		return;
	SSL_set_session(t->ssl, s); /* when it does not fit, a full handshake is made */
	SSL_SESSION_free(s);
}

int stream_start_tls_client(struct stream *st, struct tls_client *c, const char *server_name,
			    enum tls_buffered buffered, mono_t deadline)
{
	if (tls_check_start(st) != 0)
		return -1;
	struct tls *t = tls_new(st, tls_client_context(c));
	if (server_name == NULL && !t->context->is_unverified) {
		err_set(ERR_INVALID, "a certificate cannot be verified without the server's name");
		tls_free(t);
		return -1;
	}
	if (server_name != NULL && tls_set_server_name(t, server_name) != 0) {
		tls_free(t);
		return -1;
	}
	tls_set_session(t, server_name);
	SSL_set_connect_state(t->ssl);
	return tls_start(st, t, false, buffered, deadline);
}
