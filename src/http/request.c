/* request.c - what a handler asks of a request. */
#include "http/http_impl.h"

str_t http_request_header(const struct http_request *r, str_t name)
{
	for (size_t i = 0; i < r->n_headers; i++) {
		if (str_ieq(r->header[i].name, name))
			return r->header[i].value;
	}
	return STR_NULL;
}

bool http_request_peer_is_trusted(const struct http_request *r)
{
	return cidr_set_has(&r->listener->p.trusted_hosts, r->peer);
}

const char *http_request_hostname(const struct http_request *r)
{
	return r->listener->p.hostname;
}

dur_t http_request_idempotency_ttl(const struct http_request *r)
{
	return r->listener->p.idempotency_ttl;
}
