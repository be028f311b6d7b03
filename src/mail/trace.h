/* trace.h - the header fields that a server adds to follow a message by: Received (RFC 5321
 * section 4.4) and the supplemental field, by which a feedback report is matched to its message. */
#pragma once

#include "mail/message.h"

struct trace_received {
	str_t from;	 /* the name the client gave, or what stands for it; empty: `unspecified` */
	str_t from_addr; /* its address, without port */
	str_t by;	 /* this host */
	str_t by_addr;	 /* p NULL: not said */
	str_t protocol;	 /* "ESMTP", "ESMTPSA", "HTTP" (RFC 3848) */
	str_t tls;	 /* "TLSv1.3:TLS_AES_256_GCM_SHA384"; p NULL: none */
	wall_t when;
};
/** Puts the field before all others of m, for its first recipient. Bytes of the slices that may not stand in
 * a header become `?`. */
void trace_add_received(struct message *m, const struct trace_received *t);
/** Puts field `name` (header_name_is_valid) before all others: base64 of a JSON object with the marker, the
 * recipients, and the named metadata (null when unset), folded after 75 characters of it. */
void trace_add_supplemental(struct message *m, str_t name, const str_t *meta_names, size_t n);
