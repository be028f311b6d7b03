/* fetch.c - libcurl's multi interface on a worker's loop.
 *
 * Each worker that fetches has a hub: the multi handle, a uv_timer and a uv_poll per socket, which together
 * are what libcurl asks for (curl_multi_socket_action(3)). libcurl works in their callbacks, on the loop
 * stack; a finished transfer wakes its fiber. A fiber only adds and removes easy handles, and those calls
 * never overlap with a callback, being of the same thread. The transfer is on the fiber's stack: it is
 * removed from the hub before the fiber leaves, in every case.
 *
 * A fiber keeps the hub: it ends it when it has been idle for HUB_LINGER, which closes the kept connections,
 * and when the worker stops, after the last transfer has gone. The next fetch makes another one.
 *
 * libcurl resolves names on threads of its own. Giving up must not wait for those, hence CURLOPT_QUICK_EXIT.
 * Redirects are followed here and not by libcurl, which would take a secret header to any host. */
#include "net/fetch.h"

#include "base/alloc.h"
#include "base/err.h"
#include "fiber/sync.h"
#include "fiber/worker.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>
#include <strings.h>

#define HUB_LINGER dur_s(30)
#define HUB_KEPT_CONNECTIONS 16L
#define FETCH_CONNECT_TIMEOUT dur_s(10)
#define FETCH_MAX_HEADERS 256
#define FETCH_MAX_HEADER_BYTES (64 << 10)
#define FETCH_NAME_BYTES 200 /* of an address in error texts */

struct fetch_hub {
	CURLM *multi;
	uv_timer_t timer;
	size_t n_active;
	struct fiber_cond changed; /* n_active has fallen */
};

struct fetch_sock {
	uv_poll_t poll;
	struct fetch_hub *hub;
	curl_socket_t fd;
};

struct fetch_transfer {
	CURL *easy;
	struct waiter waiter;
	bool is_done;
	CURLcode result;
	struct fetch_response *out;
	size_t max_body_bytes, n_header_bytes;
	bool is_too_large;
	char why[CURL_ERROR_SIZE];
};

static __thread struct fetch_hub *fetch_hub;

/* --- the hub, on the loop stack --- */

static void hub_collect(struct fetch_hub *hub)
{
	int n_left;
	for (CURLMsg *m; (m = curl_multi_info_read(hub->multi, &n_left)) != NULL;) {
		struct fetch_transfer *t = NULL;
		if (m->msg != CURLMSG_DONE)
			continue;
		CURLcode result = m->data.result;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
		t->result = result;
		t->is_done = true;
		waiter_wake(&t->waiter);
	}
}

static void hub_on_poll(uv_poll_t *h, int status, int events)
{
	struct fetch_sock *s = container_of(h, struct fetch_sock, poll);
	struct fetch_hub *hub = s->hub; /* s may be closed by what follows */
	int n_running, what = 0;
	if (status < 0)
		what = CURL_CSELECT_ERR;
	if ((events & UV_READABLE) != 0)
		what |= CURL_CSELECT_IN;
	if ((events & UV_WRITABLE) != 0)
		what |= CURL_CSELECT_OUT;
	curl_multi_socket_action(hub->multi, s->fd, what, &n_running);
	hub_collect(hub);
}

static void hub_on_timer(uv_timer_t *h)
{
	struct fetch_hub *hub = container_of(h, struct fetch_hub, timer);
	int n_running;
	curl_multi_socket_action(hub->multi, CURL_SOCKET_TIMEOUT, 0, &n_running);
	hub_collect(hub);
}

static void hub_on_sock_closed(uv_handle_t *h)
{
	free(container_of((uv_poll_t *)h, struct fetch_sock, poll));
}

/* libcurl says what it waits for on a socket. */
static int hub_watch(CURL *easy, curl_socket_t fd, int what, void *arg, void *of_socket)
{
	struct fetch_hub *hub = arg;
	struct fetch_sock *s = of_socket;
	if (what == CURL_POLL_REMOVE) {
		if (s != NULL)
			uv_close((uv_handle_t *)&s->poll, hub_on_sock_closed);
		curl_multi_assign(hub->multi, fd, NULL);
		return 0;
	}
	if (s == NULL) {
		s = xnew(struct fetch_sock);
		s->hub = hub;
		s->fd = fd;
		if (uv_poll_init(worker_loop(worker_self()), &s->poll, fd) != 0) {
			free(s);
			return -1;
		}
		curl_multi_assign(hub->multi, fd, s);
	}
	int events = ((what & CURL_POLL_IN) != 0 ? UV_READABLE : 0) |
		     ((what & CURL_POLL_OUT) != 0 ? UV_WRITABLE : 0);
	return uv_poll_start(&s->poll, events, hub_on_poll) == 0 ? 0 : -1;
}

static int hub_set_timer(CURLM *multi, long ms, void *arg)
{
	struct fetch_hub *hub = arg;
	if (ms < 0)
		return uv_timer_stop(&hub->timer) == 0 ? 0 : -1;
	uv_update_time(hub->timer.loop);
	return uv_timer_start(&hub->timer, hub_on_timer, (uint64_t)ms, 0) == 0 ? 0 : -1;
}

/* --- the hub's life --- */

static void hub_on_timer_closed(uv_handle_t *h)
{
	free(container_of((uv_timer_t *)h, struct fetch_hub, timer));
}

static void hub_keep(void *arg)
{
	struct fetch_hub *hub = arg;
	fiber_set_waits_for("fetches");
	for (;;) {
		mono_t until = hub->n_active > 0 ? MONO_NEVER : mono_after(HUB_LINGER);
		if (fiber_cond_wait(&hub->changed, until) == 0)
			continue;
		bool is_over = hub->n_active == 0 || err_is(ERR_CANCELLED);
		err_clear();
		if (is_over)
			break;
	}
	if (fetch_hub == hub)
		fetch_hub = NULL; /* a fetch from now on makes its own */
	fiber_shield_begin();
	while (hub->n_active > 0)
		if (fiber_cond_wait(&hub->changed, MONO_NEVER) != 0)
			err_clear();
	fiber_shield_end();
	curl_multi_cleanup(hub->multi);
	uv_close((uv_handle_t *)&hub->timer, hub_on_timer_closed);
}

static void fetch_init_curl(void)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
		panic("libcurl does not start");
}

static struct fetch_hub *hub_get(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	if (fetch_hub != NULL)
		return fetch_hub;
	pthread_once(&once, fetch_init_curl);
	struct fetch_hub *hub = xnew(struct fetch_hub);
	hub->multi = curl_multi_init();
	if (hub->multi == NULL)
		panic("out of memory in libcurl");
	uv_timer_init(worker_loop(worker_self()), &hub->timer);
	fiber_cond_init(&hub->changed);
	curl_multi_setopt(hub->multi, CURLMOPT_SOCKETFUNCTION, hub_watch);
	curl_multi_setopt(hub->multi, CURLMOPT_SOCKETDATA, hub);
	curl_multi_setopt(hub->multi, CURLMOPT_TIMERFUNCTION, hub_set_timer);
	curl_multi_setopt(hub->multi, CURLMOPT_TIMERDATA, hub);
	curl_multi_setopt(hub->multi, CURLMOPT_MAXCONNECTS, HUB_KEPT_CONNECTIONS);
	fetch_hub = hub;
	fiber_start(NULL, "fetch", hub_keep, hub);
	return hub;
}

/* --- addresses --- */

/* scheme, host and port; with a path: for showing. NULL: no http or https URL. */
static char *fetch_url_origin(const char *url, bool has_path)
{
	char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL, *out = NULL;
	CURLU *u = curl_url();
	if (u != NULL && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_PATH, &path, 0) == CURLUE_OK &&
	    (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0))
		out = xasprintf("%s://%s:%s%s", scheme, host, port, has_path ? path : "");
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_free(path);
	curl_url_cleanup(u);
	return out;
}

int fetch_url_show(const char *url, struct buf *out)
{
	char *text = fetch_url_origin(url, true);
	if (text == NULL) {
		err_set(ERR_INVALID, "not an http or https URL");
		return -1;
	}
	buf_add_z(out, text);
	free(text);
	return 0;
}

/* The redirect stays where it may go. */
static bool fetch_may_follow(const char *from, const char *to, bool has_secret)
{
	char *a = fetch_url_origin(from, false), *b = fetch_url_origin(to, false);
	bool may = a != NULL && b != NULL;
	if (may)
		may = has_secret ? strcmp(a, b) == 0 : strncmp(a, b, strcspn(a, ":") + 1) == 0;
	free(a);
	free(b);
	return may;
}

/* --- one request --- */

static bool fetch_is_token(const char *z)
{
	if (*z == 0)
		return false;
	for (; *z != 0; z++)
		if (*z <= ' ' || *z >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", *z) != NULL)
			return false;
	return true;
}

static bool fetch_is_value(str_t v)
{
	for (size_t i = 0; i < v.n; i++)
		if (((unsigned char)v.p[i] < ' ' && v.p[i] != '\t') || v.p[i] == 0x7f)
			return false;
	return true;
}

static int fetch_add_header(struct curl_slist **list, const char *name, str_t value)
{
	struct buf line = BUF_INIT;
	if (!fetch_is_token(name) || !fetch_is_value(value)) {
		err_set(ERR_INVALID,
			"the value of the header `%.100s` (or the name) has characters that it must not",
			name);
		return -1;
	}
	secret_buf_add(&line, str_of(name));
	secret_buf_add(&line, value.n > 0 ? STR(": ") : STR(";")); /* libcurl's word for an empty value */
	secret_buf_add(&line, value);
	struct curl_slist *more = curl_slist_append(*list, line.p);
	if (more == NULL)
		panic("out of memory in libcurl");
	*list = more;
	secret_buf_fini(&line);
	return 0;
}

static void fetch_free_headers(struct curl_slist *list)
{
	for (struct curl_slist *l = list; l != NULL; l = l->next)
		secret_wipe(l->data, strlen(l->data));
	curl_slist_free_all(list);
}

static int fetch_make_headers(const struct fetch_request *rq, struct curl_slist **out)
{
	struct curl_slist *list = NULL;
	for (size_t i = 0; i < rq->n_headers; i++) {
		const struct fetch_header *h = &rq->header[i];
		if (fetch_add_header(&list, h->name,
				     h->secret != NULL ? secret_bytes(h->secret) : str_of(h->value)) != 0) {
			fetch_free_headers(list);
			return -1;
		}
	}
	/* not asked for before a body is sent */
	struct curl_slist *more = curl_slist_append(list, "Expect:");
	if (more == NULL)
		panic("out of memory in libcurl");
	*out = more;
	return 0;
}

static size_t fetch_on_body(char *p, size_t size, size_t n, void *arg)
{
	struct fetch_transfer *t = arg;
	if (n > t->max_body_bytes - t->out->body.n) {
		t->is_too_large = true;
		return 0;
	}
	secret_buf_add(&t->out->body, str_mk(p, n));
	return n;
}

static void fetch_drop_headers(struct fetch_response *rs)
{
	for (size_t i = 0; i < rs->n_headers; i++) {
		free((char *)(uintptr_t)rs->header[i].name);
		free((char *)(uintptr_t)rs->header[i].value);
	}
	free(rs->header);
	rs->header = NULL;
	rs->n_headers = 0;
}

static size_t fetch_on_header(char *p, size_t size, size_t n, void *arg)
{
	struct fetch_transfer *t = arg;
	struct fetch_response *rs = t->out;
	str_t line = str_mk(p, n), name;
	if (str_starts(line, STR("HTTP/")) && str_chr(line, ':', 0) < 0)
		fetch_drop_headers(rs); /* an interim answer came before */
	t->n_header_bytes += n;
	if (rs->n_headers == FETCH_MAX_HEADERS || t->n_header_bytes > FETCH_MAX_HEADER_BYTES) {
		t->is_too_large = true;
		return 0;
	}
	if (str_chr(line, ':', 0) <= 0 || !str_split(&line, ':', &name))
		return n;
	rs->header = xreallocarray(rs->header, rs->n_headers + 1, sizeof(*rs->header));
	rs->header[rs->n_headers++] =
		(struct fetch_header){.name = str_dup(str_trim(name)), .value = str_dup(str_trim(line))};
	return n;
}

static void fetch_set_method(CURL *e, const char *method, str_t body)
{
	if (body.p != NULL) {
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.n);
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, body.p);
	}
	if (strcmp(method, "HEAD") == 0)
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	else
		curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method);
}

static CURL *fetch_make_easy(const struct fetch_request *rq, struct fetch_transfer *t)
{
	CURL *e = curl_easy_init();
	if (e == NULL)
		panic("out of memory in libcurl");
	dur_t connect = rq->connect_timeout.ns > 0 ? rq->connect_timeout : FETCH_CONNECT_TIMEOUT;
	curl_easy_setopt(e, CURLOPT_PRIVATE, (char *)t);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->why);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(e, CURLOPT_PROXY, "");
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect.ns / 1000000 + 1));
	curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, rq->is_unverified ? 0L : 1L);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, rq->is_unverified ? 0L : 2L);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, fetch_on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, fetch_on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
	if (rq->ca != NULL) {
		str_t pem = secret_bytes(rq->ca);
		struct curl_blob blob = {
			.data = (void *)(uintptr_t)pem.p, .len = pem.n, .flags = CURL_BLOB_NOCOPY};
		curl_easy_setopt(e, CURLOPT_CAINFO_BLOB, &blob);
		curl_easy_setopt(e, CURLOPT_CAPATH, NULL); /* or the system's would be trusted as well */
	}
	return e;
}

static enum err_kind fetch_err_kind(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return ERR_DNS;
	case CURLE_COULDNT_CONNECT:
		return ERR_CONNECT;
	case CURLE_OPERATION_TIMEDOUT:
		return ERR_TIMEOUT;
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_PARTIAL_FILE:
		return ERR_CLOSED;
	case CURLE_URL_MALFORMAT:
	case CURLE_SSL_CACERT_BADFILE:
		return ERR_INVALID;
	default:
		return ERR_PROTO;
	}
}

static int fetch_fail(const struct fetch_transfer *t)
{
	if (t->is_too_large)
		err_set(ERR_LIMIT, "the answer is larger than %zu bytes", t->max_body_bytes);
	else
		err_set(fetch_err_kind(t->result), "%s",
			t->why[0] != 0 ? t->why : curl_easy_strerror(t->result));
	return -1;
}

/* t is on the multi handle of the worker from here to the end. Yields. */
static int fetch_transfer_run(struct fetch_transfer *t, mono_t deadline)
{
	struct fetch_hub *hub = hub_get();
	int rc = -1;
	waiter_init(&t->waiter);
	CURLMcode added = curl_multi_add_handle(hub->multi, t->easy);
	if (added != CURLM_OK) {
		err_set(ERR_INVALID, "%s", curl_multi_strerror(added));
		return -1;
	}
	hub->n_active++;
	const char *before = fiber_set_waits_for("an HTTP answer");
	while (!t->is_done)
		if (fiber_wait(&t->waiter, deadline) != 0)
			goto out;
	rc = t->result == CURLE_OK ? 0 : fetch_fail(t);
out:
	fiber_set_waits_for(before);
	curl_multi_remove_handle(hub->multi, t->easy);
	hub->n_active--;
	fiber_cond_signal(&hub->changed);
	return rc;
}

static int fetch_once(const struct fetch_request *rq, const char *method, const char *url, str_t body,
		      struct fetch_response *out, mono_t deadline)
{
	int rc = -1;
	long status = 0;
	char *location = NULL;
	struct curl_slist *headers = NULL;
	struct fetch_transfer *t = xnew(struct fetch_transfer);
	t->out = out;
	t->max_body_bytes = rq->max_body_bytes > 0 ? rq->max_body_bytes : FETCH_DEFAULT_BODY_BYTES;
	if (fetch_make_headers(rq, &headers) != 0)
		goto out;
	t->easy = fetch_make_easy(rq, t);
	curl_easy_setopt(t->easy, CURLOPT_URL, url);
	curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, headers);
	fetch_set_method(t->easy, method, body);
	if (fetch_transfer_run(t, deadline) != 0)
		goto out;
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &location);
	out->status = (int)status;
	out->location = location != NULL ? xstrdup(location) : NULL;
	rc = 0;
out:
	curl_easy_cleanup(t->easy);
	fetch_free_headers(headers);
	free(t);
	return rc;
}

static bool fetch_has_secret(const struct fetch_request *rq)
{
	for (size_t i = 0; i < rq->n_headers; i++)
		if (rq->header[i].secret != NULL)
			return true;
	return false;
}

/* RFC 9110 section 15.4. */
static void fetch_turn_to_get(int status, const char **method, str_t *body)
{
	bool is_post = strcmp(*method, "POST") == 0;
	if ((status == 303 && strcmp(*method, "HEAD") != 0) ||
	    ((status == 301 || status == 302) && is_post)) {
		*method = "GET";
		*body = STR_NULL;
	}
}

int fetch_perform(const struct fetch_request *rq, struct fetch_response *out, mono_t deadline)
{
	struct fetch_response rs = {0};
	const char *method = rq->method != NULL ? rq->method : "GET";
	char *url = xstrdup(rq->url), *shown = fetch_url_origin(rq->url, true);
	str_t body = rq->body;
	int rc = -1;
	if (shown == NULL) {
		err_set(ERR_INVALID, "the address to ask is not an http or https URL");
		goto out;
	}
	if (!fetch_is_token(method)) {
		err_set(ERR_INVALID, "`%.100s` is not a method of HTTP", method);
		goto out;
	}
	for (unsigned n_left = rq->max_redirects;; n_left--) {
		if (fetch_once(rq, method, url, body, &rs, deadline) != 0) {
			err_wrap("%s %.*s", method, FETCH_NAME_BYTES, shown);
			goto out;
		}
		if (rs.location == NULL || n_left == 0 ||
		    !fetch_may_follow(url, rs.location, fetch_has_secret(rq)))
			break;
		fetch_turn_to_get(rs.status, &method, &body);
		free(url);
		url = rs.location;
		rs.location = NULL;
		fetch_response_fini(&rs);
		free(shown);
		shown = fetch_url_origin(url, true);
	}
	*out = rs;
	rs = (struct fetch_response){0};
	rc = 0;
out:
	fetch_response_fini(&rs);
	free(url);
	free(shown);
	return rc;
}

void fetch_response_fini(struct fetch_response *rs)
{
	secret_buf_fini(&rs->body);
	fetch_drop_headers(rs);
	free(rs->location);
	*rs = (struct fetch_response){0};
}

const char *fetch_response_header(const struct fetch_response *rs, const char *name)
{
	for (size_t i = 0; i < rs->n_headers; i++)
		if (strcasecmp(rs->header[i].name, name) == 0)
			return rs->header[i].value;
	return NULL;
}
