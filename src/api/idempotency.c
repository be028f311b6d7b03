/* idempotency.c - who may do the work of a key.
 *
 * A key belongs to who posts and to the path, and stands for one body; both are hashed (SHA-256), so that
 * neither the key nor the login can be read in the spool. Requests that are worked on are in a map under one
 * short mutex, across workers. Whoever comes looks there first, then in the spool, both under the mutex: a
 * request leaves the map only after its key is in the spool's index or is known not to get there, so nobody
 * finds neither. One that finds another at work puts an event into its line and waits; when the other ends,
 * all in the line look again, and the first to do so goes on itself if nothing was stored. The struct of a
 * request lies in its handler's stack: it is in the map only as long as the handler runs.
 *
 * The body's hash decides whether it is the same request. It is of the body as decoded, so another
 * Content-Encoding makes no other request; other bytes do, also those that mean the same JSON.
 *
 * Who posts without a login shares the keys with all who do: they are trusted by address, and the same client
 * may come back from another one. */
#include "api/idempotency.h"

#include "api/authorize.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/map.h"
#include "base/metric.h"
#include "fiber/worker.h"

#include <openssl/evp.h>
#include <pthread.h>

#define HEADER "Idempotency-Key"
#define HASH_SLICE (1u << 20) /* a millisecond or two */

static struct {
	struct spool *spool;
	const EVP_MD *sha256;
	struct metric_series *replays, *conflicts, *waits;
	pthread_mutex_t lock;
	struct map running; /* key.id -> struct idempotency */
} idempotency_g = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct in_line { /* a request that waits for another */
	struct list link;
	struct event *event;
};

/* ---- the key ---- */

/* RFC 8941 section 4.2.5, to the end of the value: parameters are not known here. */
static const char *parse_quoted(str_t v, char key[IDEMPOTENCY_KEY_MAX], size_t *n)
{
	size_t i = 1;
	for (*n = 0; i < v.n && v.p[i] != '"'; i++) {
		if (v.p[i] == '\\' && (i + 1 == v.n || (v.p[++i] != '"' && v.p[i] != '\\')))
			return "a backslash in it must be followed by a quote or a backslash";
		if (v.p[i] < 0x20 || v.p[i] > 0x7e)
			return "it may hold printable ASCII only";
		if (*n == IDEMPOTENCY_KEY_MAX)
			return "it is longer than 255 characters";
		key[(*n)++] = v.p[i];
	}
	if (i == v.n)
		return "the closing quote is missing";
	return i + 1 == v.n ? NULL : "there is something behind the closing quote";
}

static const char *parse_bare(str_t v, char key[IDEMPOTENCY_KEY_MAX], size_t *n)
{
	for (size_t i = 0; i < v.n; i++) {
		if (v.p[i] < 0x20 || v.p[i] > 0x7e)
			return "it may hold printable ASCII only";
		if (v.p[i] == ' ' || v.p[i] == '"' || v.p[i] == ',')
			return "with a blank, a quote or a comma in it, it must stand in quotes";
	}
	if (v.n > IDEMPOTENCY_KEY_MAX)
		return "it is longer than 255 characters";
	memcpy(key, v.p, v.n);
	*n = v.n;
	return NULL;
}

const char *idempotency_parse_key(str_t value, char key[IDEMPOTENCY_KEY_MAX], size_t *n)
{
	*n = 0;
	if (value.n == 0)
		return "it is empty";
	const char *why = value.p[0] == '"' ? parse_quoted(value, key, n) : parse_bare(value, key, n);
	return why != NULL || *n > 0 ? why : "it is empty";
}

/* The header's value; p NULL: there is none. False when there are several. */
static bool idempotency_find_header(const struct http_request *r, str_t *value)
{
	size_t n = 0;
	*value = STR_NULL;
	for (size_t i = 0; i < r->n_headers; i++) {
		if (str_ieq(r->header[i].name, STR(HEADER))) {
			*value = r->header[i].value.n > 0 ? r->header[i].value : STR("");
			n++;
		}
	}
	return n <= 1;
}

/* ---- hashes ---- */

static void hash_add(EVP_MD_CTX *c, const void *p, size_t n)
{
	if (EVP_DigestUpdate(c, p, n) != 1)
		panic("SHA-256 failed");
}

static EVP_MD_CTX *hash_new(void)
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	if (c == NULL || EVP_DigestInit_ex2(c, idempotency_g.sha256, NULL) != 1)
		panic("SHA-256 cannot be had");
	return c;
}

static void hash_end(EVP_MD_CTX *c, uint8_t out[32])
{
	unsigned n = 32;
	if (EVP_DigestFinal_ex(c, out, &n) != 1 || n != 32)
		panic("SHA-256 failed");
	EVP_MD_CTX_free(c);
}

/* With its length in front, so that no two lists of parts are the same bytes. */
static void hash_add_part(EVP_MD_CTX *c, str_t part)
{
	uint64_t n = part.n;
	hash_add(c, &n, sizeof(n));
	hash_add(c, part.p, part.n);
}

static struct uuid idempotency_id(struct http_request *r, str_t key)
{
	const struct auth_info *who = api_request_who(r);
	uint8_t hash[32];
	struct uuid id;
	EVP_MD_CTX *c = hash_new();
	hash_add_part(c, r->path);
	hash_add_part(c, who->n_identities > 0 ? STR("login") : STR(""));
	hash_add_part(c, who->n_identities > 0 ? auth_info_name(who) : STR(""));
	hash_add_part(c, key);
	hash_end(c, hash);
	hash[0] |= 1; /* all zero is no id */
	memcpy(id.b, hash, sizeof(id.b));
	return id;
}

/* A large body takes a while: others may run in between. */
static void idempotency_print(str_t body, uint8_t print[32], mono_t deadline UNUSED)
{
	EVP_MD_CTX *c = hash_new();
	for (; body.n > HASH_SLICE; body = str_skip(body, HASH_SLICE)) {
		hash_add(c, body.p, HASH_SLICE);
		fiber_yield();
	}
	hash_add(c, body.p, body.n);
	hash_end(c, print);
}

/* ---- answers ---- */

static bool refuse_key(struct http_response *a, const char *why)
{
	http_response_text(a, 400, "Error: " HEADER ": %s", why);
	return false;
}

static bool refuse_conflict(struct http_response *a)
{
	metric_inc(idempotency_g.conflicts);
	http_response_text(a, 409,
			   "Error: " HEADER ": a request with another body came under this key before");
	return false;
}

/* The one at work is not done, and time is up. */
static bool refuse_wait(struct http_request *r, struct http_response *a)
{
	bool is_late = err_is(ERR_TIMEOUT);
	err_clear();
	http_response_text(a, is_late ? 409 : 503,
			   "Error: " HEADER
			   ": the request that came first under this key is still being worked on");
	http_response_add_header(r, a, STR("retry-after"), STR("1"));
	return false;
}

static void idempotency_unpack(struct http_request *r, str_t packed, struct http_response *a)
{
	ptrdiff_t end = str_chr(packed, 0, 0);
	if (end > 0)
		a->content_type = arena_str(r->arena, str_head(packed, (size_t)end)).p;
	buf_clear(&a->body);
	buf_add_str(&a->body, str_skip(packed, (size_t)(end + 1)));
	http_response_add_header(r, a, STR("idempotent-replayed"), STR("true"));
}

/* ---- in line ---- */

enum claim { CLAIM_MINE, CLAIM_CONFLICT, CLAIM_STORED, CLAIM_RUNNING };

/* Makes the request the one at work with its key, or says what stands against it; puts `l` into the line when
 * that is another one at work. */
static enum claim idempotency_claim(struct idempotency *k, struct in_line *l)
{
	str_t id = str_mk((const char *)k->key.id.b, sizeof(k->key.id.b));
	enum claim c = CLAIM_MINE;
	pthread_mutex_lock(&idempotency_g.lock);
	struct idempotency *other = map_find(&idempotency_g.running, id);
	if (other != NULL && memcmp(other->key.print, k->key.print, sizeof(k->key.print)) != 0) {
		c = CLAIM_CONFLICT;
	} else if (other != NULL) {
		l->event = event_new();
		list_push_back(&other->line, &l->link);
		c = CLAIM_RUNNING;
	} else if (spool_has_key(idempotency_g.spool, &k->key.id)) {
		c = CLAIM_STORED;
	} else {
		map_put(&idempotency_g.running, id, k);
		k->is_found = true;
	}
	pthread_mutex_unlock(&idempotency_g.lock);
	return c;
}

static int idempotency_wait(struct in_line *l, mono_t deadline)
{
	metric_inc(idempotency_g.waits);
	int rc = event_wait(l->event, deadline);
	pthread_mutex_lock(&idempotency_g.lock);
	list_remove(&l->link);
	pthread_mutex_unlock(&idempotency_g.lock);
	event_unref(l->event);
	return rc;
}

/* False when the key has just expired. */
static bool idempotency_replay(struct idempotency *k, struct http_request *r, struct http_response *a,
			       mono_t deadline)
{
	struct buf bytes = BUF_INIT;
	struct spool_key stored;
	bool is_answered = true;
	int rc = spool_load_key(idempotency_g.spool, &k->key.id, &stored, &bytes, deadline);
	if (rc != 0 && err_is(ERR_NOT_FOUND)) {
		err_clear();
		is_answered = false;
	} else if (rc != 0) { /* it was done: it must not be done again */
		int status = err_is(ERR_CORRUPT) ? 500 : 503;
		err_wrap(HEADER ": the request was done, but its answer cannot be read");
		http_response_err(a, status);
		if (status == 503)
			http_response_add_header(r, a, STR("retry-after"), STR("1"));
	} else if (memcmp(stored.print, k->key.print, sizeof(stored.print)) != 0) {
		refuse_conflict(a);
	} else {
		metric_inc(idempotency_g.replays);
		idempotency_unpack(r, stored.answer, a);
	}
	buf_fini(&bytes);
	return is_answered;
}

/* ---- the way of a request ---- */

bool idempotency_begin(struct idempotency *k, struct http_request *r, struct http_response *a,
		       mono_t deadline)
{
	char key[IDEMPOTENCY_KEY_MAX];
	size_t n;
	str_t value;
	*k = (struct idempotency){.answer = BUF_INIT};
	list_init(&k->line);
	if (!idempotency_find_header(r, &value))
		return refuse_key(a, "there is more than one");
	if (value.p == NULL)
		return true;
	dur_t ttl = http_request_idempotency_ttl(r);
	if (ttl.ns == 0)
		return refuse_key(a, "keys are switched off on this listener");
	const char *why = idempotency_parse_key(value, key, &n);
	if (why != NULL)
		return refuse_key(a, why);
	k->is_keyed = true;
	k->key.id = idempotency_id(r, str_mk(key, n));
	idempotency_print(r->body, k->key.print, deadline);
	for (;;) {
		struct in_line l;
		list_init(&l.link);
		enum claim c = idempotency_claim(k, &l);
		if (c == CLAIM_MINE)
			break;
		if (c == CLAIM_CONFLICT)
			return refuse_conflict(a);
		if (c == CLAIM_STORED && idempotency_replay(k, r, a, deadline))
			return false;
		if (c == CLAIM_RUNNING && idempotency_wait(&l, deadline) != 0)
			return refuse_wait(r, a);
	}
	k->key.expires = wall_add(wall_now(), ttl);
	return true;
}

int idempotency_set_answer(struct idempotency *k, const char *content_type, str_t body)
{
	if (!k->is_keyed)
		return 0;
	if (body.n + strlen(content_type) + 1 > SPOOL_ANSWER_MAX) {
		err_set(ERR_INVALID,
			HEADER
			": the answer has %zu bytes, too many to be kept: post fewer recipients at a time",
			body.n);
		return -1;
	}
	buf_clear(&k->answer);
	buf_add(&k->answer, content_type, strlen(content_type) + 1); /* see idempotency_unpack */
	buf_add_str(&k->answer, body);
	k->key.answer = buf_str(&k->answer);
	return 0;
}

const struct spool_key *idempotency_key(const struct idempotency *k)
{
	return k->is_keyed ? &k->key : NULL;
}

void idempotency_end(struct idempotency *k)
{
	if (k->is_found) {
		pthread_mutex_lock(&idempotency_g.lock);
		map_remove(&idempotency_g.running, str_mk((const char *)k->key.id.b, sizeof(k->key.id.b)));
		/* Each is there until it has had the lock itself. */
		for (struct list *l; (l = list_pop_front(&k->line)) != NULL;)
			event_fire(list_entry(l, struct in_line, link)->event);
		pthread_mutex_unlock(&idempotency_g.lock);
	}
	buf_fini(&k->answer);
	k->is_found = k->is_keyed = false;
}

/* ---- around it ---- */

const struct http_field idempotency_request_headers[] = {
	{.name = HEADER,
	 .type = HTTP_STRING,
	 .doc = "A name for this request, up to 255 printable characters, "
		"best a UUID. Sent again under the same key with the same body, "
		"it gets the answer of the first time (200) and is not done again, "
		"for as long as the listener keeps keys (idempotency_ttl). "
		"Under the same key with another body it is answered 409.",
	 .example = "\"8e03978e-40d5-43e8-bc93-6894a57f9324\""},
	{0},
};
const struct http_field idempotency_answer_headers[] = {
	{.name = "Idempotent-Replayed",
	 .type = HTTP_STRING,
	 .doc = "`true` when this is the answer of an earlier request with the same key."},
	{0},
};

static void idempotency_collect(void *arg, struct metric_out *out)
{
	struct spool_stats s;
	spool_get_stats(arg, &s);
	metric_sample(out, NULL, (double)s.n_keys);
}

void idempotency_init(struct spool *sp)
{
	struct metric *replays, *conflicts, *waits;
	replays =
		metric_declare(METRIC_COUNTER, "cirrus_idempotency_replays_total",
			       "requests answered with the stored answer of an earlier one with the same key",
			       NULL, NULL, 0);
	conflicts = metric_declare(METRIC_COUNTER, "cirrus_idempotency_conflicts_total",
				   "requests refused because their key was used before with another body",
				   NULL, NULL, 0);
	waits = metric_declare(METRIC_COUNTER, "cirrus_idempotency_waits_total",
			       "requests that waited for another one with the same key", NULL, NULL, 0);
	metric_declare_collected(METRIC_GAUGE, "cirrus_idempotency_keys", "keys held with their answers",
				 NULL, idempotency_collect, sp);
	idempotency_g.spool = sp;
	idempotency_g.replays = metric_get(replays, NULL);
	idempotency_g.conflicts = metric_get(conflicts, NULL);
	idempotency_g.waits = metric_get(waits, NULL);
	if (idempotency_g.sha256 == NULL)
		idempotency_g.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (idempotency_g.sha256 == NULL)
		panic("SHA-256 cannot be had");
}
