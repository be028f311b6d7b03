/* in_command.h - what an SMTP client may say (RFC 5321 section 4.1 and the extensions we offer): one line at
 * a time, taken apart without I/O. Everything points into the line. */
#pragma once

#include "mime/envelope.h"
#include "net/addr.h"

enum in_verb {
	IN_HELO,
	IN_EHLO,
	IN_MAIL,
	IN_RCPT,
	IN_DATA,
	IN_BDAT,
	IN_RSET,
	IN_NOOP,
	IN_QUIT,
	IN_STARTTLS,
	IN_AUTH,
	IN_XCLIENT,
	IN_UNIMPLEMENTED, /* VRFY, EXPN, HELP, LHLO, and whatever is no command at all */
	IN_HTTP,	  /* the request line of a web browser or proxy that was made to speak to us */
};

/* How a command is refused; static texts. */
struct in_refusal {
	int code;
	const char *text; /* with its enhanced status code */
};

enum in_ret { IN_RET_NONE, IN_RET_FULL, IN_RET_HDRS };

struct in_command {
	enum in_verb verb;
	str_t arg;	    /* EHLO, HELO: the name. AUTH: the mechanism. XCLIENT: the attributes */
	str_t initial;	    /* AUTH: the initial response; p NULL: none. "=" stands for an empty one */
	struct mailbox box; /* MAIL, RCPT */

	/* MAIL */
	bool has_size, is_smtputf8, is_requiretls;
	uint64_t size_bytes;
	enum in_ret ret; /* RFC 3461 section 4.3 */
	str_t envid;	 /* decoded it may hold anything printable; here it is xtext, as sent. p NULL: none */
	/* RCPT */
	str_t notify, orcpt; /* RFC 3461 sections 4.1 and 4.2, as sent; p NULL: none */
	/* BDAT */
	uint64_t chunk_bytes;
	bool is_last;
};

/** line has no line end. 0, or -1 with *why; out->verb is set in any case (the reply to a bad BDAT depends on
 * it). */
MUST_CHECK int in_command_parse(str_t line, struct in_command *out, struct in_refusal *why);

/* The attributes of XCLIENT that we know; the others are refused. */
struct in_xclient {
	struct net_addr addr, dest; /* without port; len 0: not given */
	int port, dest_port;	    /* -1: not given */
};
MUST_CHECK int in_xclient_parse(str_t attributes, struct in_xclient *out, struct in_refusal *why);

/** The credentials of SASL PLAIN (RFC 4616), decoded from base64 already: slices of message. False:
 * malformed. An empty authorization identity is the authentication identity. */
MUST_CHECK bool in_sasl_plain_parse(str_t message, str_t *authz, str_t *authc, str_t *password);
