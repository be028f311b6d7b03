/* tls_source.h - the TLS of a listener: where its certificate, key and client CAs come from, and their
 * renewal while the process runs. Refcounted; any worker. */
#pragma once

#include "net/keysource.h"
#include "net/tls.h"

struct tls_source_params {
	const char *service;		     /* "https": texts say "https listener on NAME". Static */
	const char *name;		     /* of the listener, for texts and the metric */
	const char *hostname;		     /* of a self-signed certificate; NULL or empty: the machine's */
	const struct keysource *certificate; /* kind NONE: self-signed, or found behind the key */
	const struct keysource
		*private_key; /* kind NONE: with a certificate, it is looked for in the same text */
	const struct keysource *client_ca; /* kind NONE: clients show no certificate */
	bool is_client_optional;	   /* with client_ca: they may show none, or another */
	enum tls_version minimum_version;
	const char *const *alpn; /* as in tls_server_params. Static */
};
struct tls_source;

/** Loads everything. Yields. Copies p. NULL: the error names listener and source. */
MUST_CHECK struct tls_source *tls_source_new(const struct tls_source_params *p, mono_t deadline);
/** Once the port is known. */
void tls_source_set_name(struct tls_source *ts, const char *name);
/** Says in the diagnostic log what is odd about it, such as an expired certificate. */
void tls_source_warn(struct tls_source *ts);
struct tls_source *tls_source_ref(struct tls_source *ts);
void tls_source_unref(struct tls_source *ts); /* NULL is fine */
/** Borrowed; the same one for as long as ts lives. */
struct tls_server *tls_source_server(const struct tls_source *ts);

/** Looks at every source, and serves new connections with what has changed. A source that fails, or a new
 * certificate that is unusable, is logged, and what is there is kept and tried again. Yields. One at a time:
 * a second caller waits. is_all: Vault and events are asked, too, which otherwise happens once in a while.
 * From worker 0. */
void tls_sources_reload(bool is_all, mono_t deadline);
/** Starts the fiber that does so every 10 s, on the calling worker, for as long as it runs. Once. */
void tls_sources_start_watch(void);

char *net_machine_hostname(void); /* heap; "localhost" when it has none */
