/* https.c - the handshake of an HTTPS connection, and what it decides: HTTP/2 or HTTP/1.1. */
#include "http/https.h"

#include "base/err.h"

const char *const https_alpn[] = {"h2", "http/1.1", NULL};

int https_setup(struct stream *st, enum http_protocol *protocol, void *arg, mono_t deadline)
{
	if (stream_start_tls_server(st, tls_source_server(arg), TLS_BUFFERED_FEED, deadline) != 0) {
		err_wrap("https");
		return -1;
	}
	*protocol = str_eq(stream_tls_info(st)->alpn, STR("h2")) ? HTTP_PROTOCOL_2 : HTTP_PROTOCOL_1;
	return 0;
}
