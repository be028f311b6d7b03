/* https.h - TLS in front of the HTTP service: where a listener's certificate, key and client CAs come from, the handshake that a
 * connection begins with, and their renewal while the listener runs. */
#pragma once

#include "http/http.h"
#include "net/keysource.h"
#include "net/tls.h"

struct https_params {
	const char *listener_name;           /* for texts and the metric */
	const char *hostname;                /* of a self-signed certificate; NULL or empty: the machine's */
	const struct keysource *certificate; /* kind NONE: self-signed, or found behind the key */
	const struct keysource *private_key; /* kind NONE: with a certificate, it is looked for in the same text */
	const struct keysource *client_ca;   /* kind NONE: clients show no certificate */
	enum tls_version minimum_version;
};
struct https;

/** Loads everything. Yields. Copies p. NULL: the error names listener and source. Oddities, such as an expired certificate, are
 * warned about in the diagnostic log. */
MUST_CHECK struct https *https_new(const struct https_params *p, mono_t deadline);
/** Once the port is known. Before the listener starts. */
void https_set_name(struct https *h, const char *listener_name);
void https_free(struct https *h); /* NULL is fine; when no connection can begin any more */

/** The listener's `setup`, with the struct https as its argument. */
http_setup_fn https_setup;

/** Looks at every source of every listener, and serves new connections with what has changed. A source that fails, or a new
 * certificate that is unusable, is logged, and what is there is kept and tried again. Yields. One at a time: a second
 * caller waits. is_all: Vault and events are asked, too, which otherwise happens once in a while. */
void https_reload_all(bool is_all, mono_t deadline);
/** Starts the fiber that does so every 10 s, on the calling worker, for as long as it runs. */
void https_start_watch(void);
