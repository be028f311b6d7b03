/* in_tls.c - certificates by their sources: settings of a listener that name the same ones share a
 * tls_source, whatever block or handler they came from, and it is renewed with the others (tls_source.h).
 * Those that no listener holds are forgotten when they have not been asked for in a while; what a policy
 * makes up per connection is bounded. */
#include "smtp/in_impl.h"

#include "base/map.h"

#include <pthread.h>

#define IN_TLS_KEEP dur_s(600)
enum { IN_TLS_MAX = 1024 };

struct in_tls {
	char *key;
	struct tls_source *source;
	mono_t used;
};

static pthread_mutex_t in_tls_lock = PTHREAD_MUTEX_INITIALIZER;
static struct map in_tls_map; /* under the lock */

static void in_tls_free(struct in_tls *t)
{
	tls_source_unref(t->source);
	free(t->key);
	free(t);
}

static char *in_tls_key(const struct in_listener *l, const struct in_settings *set)
{
	return xasprintf("%p\n%s\n%s\n%s\n%s", (const void *)l, set->hostname,
			 keysource_id(set->tls_certificate), keysource_id(set->tls_private_key),
			 keysource_id(set->tls_required_client_ca));
}

static struct tls_source *in_tls_find(str_t key)
{
	pthread_mutex_lock(&in_tls_lock);
	struct in_tls *t = map_find(&in_tls_map, key);
	struct tls_source *source = t != NULL ? tls_source_ref(t->source) : NULL;
	if (t != NULL)
		t->used = mono_now();
	pthread_mutex_unlock(&in_tls_lock);
	return source;
}

/* With the lock held: forgets what was not used in a while;
 * with a full map, whatever was used longest ago. */
static void in_tls_make_room(void)
{
	size_t pos = 0;
	void *value;
	struct in_tls *oldest = NULL;
	while (map_next(&in_tls_map, &pos, NULL, &value)) {
		struct in_tls *t = value;
		if (mono_is_past(mono_add(t->used, IN_TLS_KEEP))) {
			map_remove(&in_tls_map, str_of(t->key));
			in_tls_free(t);
		} else if (oldest == NULL || t->used.ns < oldest->used.ns) {
			oldest = t;
		}
	}
	if (in_tls_map.n >= IN_TLS_MAX && oldest != NULL) {
		map_remove(&in_tls_map, str_of(oldest->key));
		in_tls_free(oldest);
	}
}

/* Takes key. Another session may have been faster. */
static struct tls_source *in_tls_keep(char *key, struct tls_source *source)
{
	struct in_tls *t = xnew(struct in_tls);
	*t = (struct in_tls){.key = key, .source = source, .used = mono_now()};
	pthread_mutex_lock(&in_tls_lock);
	in_tls_make_room();
	struct in_tls *other = map_find(&in_tls_map, str_of(key));
	if (other == NULL)
		map_put(&in_tls_map, str_of(key), t);
	struct tls_source *kept = tls_source_ref(other != NULL ? other->source : source);
	pthread_mutex_unlock(&in_tls_lock);
	if (other != NULL)
		in_tls_free(t);
	return kept;
}

struct tls_source *in_tls_get(const struct in_listener *l, const struct in_settings *set, mono_t deadline)
{
	char *key = in_tls_key(l, set);
	struct tls_source *source = in_tls_find(str_of(key));
	if (source == NULL) {
		char *given = listen_param_fmt(&l->params->listen);
		source = tls_source_new(
			&(struct tls_source_params){.service = "smtp",
						    .name = l->listener != NULL ? in_listener_name(l) : given,
						    .hostname = set->hostname,
						    .certificate = set->tls_certificate,
						    .private_key = set->tls_private_key,
						    .client_ca = set->tls_required_client_ca,
						    .is_client_optional = true,
						    .minimum_version = TLS_1_2},
			deadline);
		free(given);
		if (source != NULL) {
			source = in_tls_keep(key, source);
			key = NULL;
		}
	}
	free(key);
	return source;
}

void in_stop(void)
{
	size_t pos = 0;
	void *value;
	pthread_mutex_lock(&in_tls_lock);
	while (map_next(&in_tls_map, &pos, NULL, &value)) {
		struct in_tls *t = value;
		map_remove(&in_tls_map, str_of(t->key));
		in_tls_free(t);
	}
	map_fini(&in_tls_map);
	pthread_mutex_unlock(&in_tls_lock);
}

/* --- on a connection --- */

static void in_tls_set_meta(struct in_session *s)
{
	const struct tls_info *info = stream_tls_info(s->st);
	struct buf names = BUF_INIT;
	struct json_out j = json_out_to(&names);
	bool has_name = false;
	meta_set_str(&s->conn.meta, STR("tls_cipher"), str_of(info->cipher_word));
	meta_set_str(&s->conn.meta, STR("tls_protocol_version"), str_of(info->version_word));
	json_arr_begin(&j);
	for (size_t i = 0; info->is_peer_verified && i < info->n_peer_names; i++) {
		if (info->peer_name[i].kind != TLS_NAME_SUBJECT)
			continue;
		has_name = true;
		json_str(&j, str_of(info->peer_name[i].text));
	}
	json_arr_end(&j);
	if (has_name)
		meta_set_json(&s->conn.meta, STR("tls_peer_subject_name"), buf_str(&names));
	buf_fini(&names);
}

enum in_go in_tls_start(struct in_session *s, struct tls_source *source, enum tls_buffered buffered)
{
	if (stream_start_tls_server(s->st, tls_source_server(source), buffered,
				    mono_after(s->set.client_timeout)) == 0) {
		s->is_tls = true;
		in_tls_set_meta(s);
		return IN_GO;
	}
	log_debug(IN_LOG, "no TLS: %s", err_text());
	if (in_is_seen())
		in_see(s, &(struct in_seen){.kind = IN_SIGHT_DIAGNOSTIC, .text = str_of(err_text())});
	/* an alert was exchanged; the client may want it in the clear, then */
	bool may_go_on = err_is(ERR_PROTO);
	err_clear();
	return may_go_on ? IN_AGAIN : IN_END;
}
