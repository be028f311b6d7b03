/* websocket.h - a websocket (RFC 6455), as the handler of a route has it: messages, until either side closes.
 * Pings are answered, and a peer that has not been heard of for the listener's idle_timeout is sent one,
 * without the handler's doing. Every function belongs to the connection's fiber, but for websocket_wake.
 *
 * What is sent may be held back until the next websocket_receive, so that many small messages leave in one
 * write. */
#pragma once

#include "http/http.h"

enum { WEBSOCKET_MAX_MESSAGE_BYTES = 65536 }; /* of what a peer sends; more ends the connection with 1009 */

/* Why a connection is closed: RFC 6455 section 7.4.1. */
enum websocket_code {
	WEBSOCKET_NORMAL = 1000,
	WEBSOCKET_GOING_AWAY = 1001,
	WEBSOCKET_PROTOCOL_ERROR = 1002,
	WEBSOCKET_UNSUPPORTED = 1003, /* kind of data */
	WEBSOCKET_INVALID = 1007,     /* data that is not what its kind says */
	WEBSOCKET_POLICY = 1008,
	WEBSOCKET_TRY_LATER = 1013,
};

enum websocket_got {
	WEBSOCKET_FAILED = -1, /* the error is set: ERR_TIMEOUT the deadline, ERR_CANCELLED the listener
				  stops, ERR_CLOSED the peer is lost */
	WEBSOCKET_TEXT,	       /* the message is UTF-8 */
	WEBSOCKET_BINARY,
	WEBSOCKET_WOKEN, /* by websocket_wake */
	WEBSOCKET_ENDED, /* the peer has closed, or has broken the protocol */
};

/** Sends what was held back, then waits for a message, which is valid until the next call. Yields. */
MUST_CHECK enum websocket_got websocket_receive(struct websocket *ws, str_t *message, mono_t deadline);
/** Ends the present websocket_receive with WEBSOCKET_WOKEN, or else the next one, once what has arrived
 * before is dealt with. From the same worker; does not yield. */
void websocket_wake(struct websocket *ws);
/** One message; text must be UTF-8. Yields, within the listener's write_timeout. -1 as WEBSOCKET_FAILED; -1
 * ERR_CLOSED after WEBSOCKET_ENDED. */
MUST_CHECK int websocket_send_text(struct websocket *ws, str_t text, mono_t deadline);
/** What the peer is told when the handler returns, at once or later; the first one counts. The reason is cut
 * to the 123 bytes that it may have. Without it: 1000, or 1001 when the listener stops. */
void websocket_close(struct websocket *ws, enum websocket_code code, const char *reason, ...)
	PRINTF_LIKE(3, 4);
