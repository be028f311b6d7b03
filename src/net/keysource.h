/* keysource.h - where a key, certificate, password or other secret comes from, as policies write it
 * (docs/keysource.md):
 *   '/path/to/file'
 *   { key_data = '...' }
 *   { vault_mount = 'secret', vault_path = 'tls/mail', vault_key = 'key', vault_address = ..., vault_token =
 * ... } { event_name = 'get_key', event_args = { ... } } One module for all who need one: listeners, DKIM,
 * SMTP. Loading gives bytes; what they are is for the caller to see. A struct keysource is immutable once
 * parsed; any thread. */
#pragma once

#include "base/clock.h"
#include "base/secret.h"

#include <jansson.h>

#define KEYSOURCE_MAX_BYTES (1 << 20)

enum keysource_kind { KEYSOURCE_NONE, KEYSOURCE_FILE, KEYSOURCE_DATA, KEYSOURCE_VAULT, KEYSOURCE_EVENT };

struct keysource {
	enum keysource_kind kind; /* NONE: nothing was given; all else is zero */
	char *path;
	struct secret *data;
	char *vault_address; /* without a slash at the end; NULL: neither given nor in $VAULT_ADDR */
	char *vault_mount, *vault_path, *vault_key;
	struct secret *vault_token; /* NULL: neither given nor in $VAULT_TOKEN */
	char *event_name;
	json_t *event_args; /* an array */
	char *text;	    /* keysource_text */
	char *id;	    /* keysource_id */
};

/** -1 ERR_INVALID naming the field; no value is in the text. out is written in full on success only. */
MUST_CHECK int keysource_parse_json(const json_t *value, struct keysource *out);
void keysource_copy(struct keysource *dst, const struct keysource *src);
void keysource_fini(struct keysource *ks);

/** For people: "file `/etc/tls.key`", "vault secret `secret/tls/mail`, field `key`, at
 * http://127.0.0.1:8200", "key_data", "event `get_key`". Holds nothing secret. */
const char *keysource_text(const struct keysource *ks);
/** Equal for equal sources of one process, and only for them: a key for caches. Secrets are in it as a keyed
 * hash whose key is random, so that it may be logged. */
const char *keysource_id(const struct keysource *ks);

/** The bytes, a new reference. Yields (except key_data, and files outside fibers); 30 s at most for Vault and
 * files. NULL: "KeySource failed to load data from <text>: ..." with ERR_IO (file), ERR_NOT_FOUND (no such
 * file, secret, field or event), ERR_INVALID, ERR_LIMIT (over KEYSOURCE_MAX_BYTES), ERR_PROTO and others of
 * fetch.h (Vault), or what the event failed with. */
MUST_CHECK struct secret *keysource_load(const struct keysource *ks, mono_t deadline);

/** What was loaded, to be compared with later. */
struct keysource_print {
	bool is_known;
	unsigned char sha256[32];
	/* Files: as they were before they were read; 0 in other sources. */
	uint64_t dev, ino, n_bytes;
	int64_t mtime_ns, ctime_ns;
	bool is_settled; /* the file was older than its clock's grain: an equal stamp means an equal content
			  */
};
/** As keysource_load, and remembers. */
MUST_CHECK struct secret *keysource_load_print(const struct keysource *ks, struct keysource_print *print,
					       mono_t deadline);
/** Looks again: 1 when the content is another one (*now, unless NULL, gets it, and print remembers it), 0
 * when it is the same, -1 as keysource_load, print as it was. A file is read only when its stamp has changed;
 * Vault and events are asked each time; key_data never changes. */
MUST_CHECK int keysource_has_changed(const struct keysource *ks, struct keysource_print *print,
				     struct secret **now, mono_t deadline);

/** Answers {event_name, event_args}; the policy layer's. Returns a new secret, or NULL with the error set.
 * Yields. Until one is set, such sources fail to load. */
typedef struct secret *keysource_event_fn(const char *event_name, const json_t *args, mono_t deadline);
void keysource_set_event_hook(keysource_event_fn *fn);

/** For schemas: PARAM_CUSTOM(strct, field, .parse = keysource_param_parse, .fini = keysource_param_fini,
 * .dump = keysource_param_dump, ...), the field being a struct keysource. The dump hides key_data and
 * vault_token. */
int keysource_param_parse(const json_t *value, void *field);
void keysource_param_fini(void *field);
void keysource_param_dump(const void *field, json_t **out);
