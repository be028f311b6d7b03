/* response.c - building an answer and writing its header. Field names are in lower case, as they are in
 * HTTP/2. */
#include "http/http_impl.h"

#include "base/alloc.h"
#include "base/err.h"

#include <stdarg.h>
#include <time.h>

enum { HTTP_KEEP_BODY_BYTES = 65536 };

static bool http_is_header_safe(str_t s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '\r' || s.p[i] == '\n' || s.p[i] == 0)
			return false;
	}
	return true;
}

void http_response_add_header(struct http_request *r, struct http_response *a, str_t name, str_t value)
{
	if (name.n == 0 || !http_is_header_safe(name) || !http_is_header_safe(value))
		panic("http: header field " STR_FMT " cannot be sent as it is", STR_ARG(name));
	size_t n = a->n_headers;
	if ((n & (n - 1)) == 0) { /* full at each power of two */
		struct http_header *grown = arena_alloc(r->arena, (n != 0 ? 2 * n : 1) * sizeof(*grown));
		if (n != 0)
			memcpy(grown, a->header, n * sizeof(*grown));
		a->header = grown;
	}
	a->header[n] = (struct http_header){name, value};
	a->n_headers = n + 1;
}

void http_response_text(struct http_response *a, int status, const char *fmt, ...)
{
	a->status = status;
	a->content_type = "text/plain; charset=utf-8";
	buf_clear(&a->body);
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(&a->body, fmt, ap);
	va_end(ap);
}

void http_response_err(struct http_response *a, int status)
{
	struct err e = err_take();
	http_response_text(a, status, "Error: %s", e.kind != ERR_NONE ? e.text : "unknown error");
	err_fini(&e);
}

void http_response_refuse(struct http_request *r, struct http_response *a, int status, const char *why)
{
	http_response_text(a, status, status == 413 ? "%s" : "Error: %s", why);
	if (status == 503)
		http_response_add_header(r, a, STR("retry-after"), STR("1"));
}

void http_response_reset(struct http_response *a)
{
	if (a->body.cap > HTTP_KEEP_BODY_BYTES)
		buf_fini(&a->body);
	buf_clear(&a->body);
	*a = (struct http_response){.status = 200, .body = a->body};
}

static const struct {
	int status;
	const char *text;
} http_reasons[] = {
	{200, "OK"},
	{201, "Created"},
	{202, "Accepted"},
	{204, "No Content"},
	{301, "Moved Permanently"},
	{302, "Found"},
	{304, "Not Modified"},
	{307, "Temporary Redirect"},
	{308, "Permanent Redirect"},
	{400, "Bad Request"},
	{401, "Unauthorized"},
	{403, "Forbidden"},
	{404, "Not Found"},
	{405, "Method Not Allowed"},
	{406, "Not Acceptable"},
	{408, "Request Timeout"},
	{409, "Conflict"},
	{411, "Length Required"},
	{413, "Payload Too Large"} /* as documented; RFC 9110 has another name for it */,
	{414, "URI Too Long"},
	{415, "Unsupported Media Type"},
	{417, "Expectation Failed"},
	{422, "Unprocessable Content"},
	{426, "Upgrade Required"},
	{429, "Too Many Requests"},
	{431, "Request Header Fields Too Large"},
	{500, "Internal Server Error"},
	{501, "Not Implemented"},
	{503, "Service Unavailable"},
	{504, "Gateway Timeout"},
	{505, "HTTP Version Not Supported"},
};

static const char *http_reason(int status)
{
	for (size_t i = 0; i < ARRAY_SIZE(http_reasons); i++) {
		if (http_reasons[i].status == status)
			return http_reasons[i].text;
	}
	return "Other"; /* a client goes by the number (RFC 9112 section 4) */
}

/* RFC 9110 section 5.6.7, for the current second. */
str_t http_date(void)
{
	static _Thread_local struct {
		int64_t unix_s;
		char text[64];
		size_t n;
	} last;
	static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	int64_t now = wall_unix_s(wall_now());
	if (now != last.unix_s || last.n == 0) {
		time_t t = (time_t)now;
		struct tm tm;
		gmtime_r(&t, &tm);
		struct buf b = BUF_INIT;
		buf_printf(&b, "%s, %02d %s %d %02d:%02d:%02d GMT", days[tm.tm_wday], tm.tm_mday,
			   months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
		last.n = b.n < sizeof(last.text) ? b.n : 0;
		memcpy(last.text, b.p, last.n);
		last.unix_s = now;
		buf_fini(&b);
	}
	return str_mk(last.text, last.n);
}

static void http_write_field(struct buf *out, str_t name, str_t value)
{
	buf_add_str(out, name);
	buf_add(out, ": ", 2);
	buf_add_str(out, value);
	buf_add(out, "\r\n", 2);
}

void http_response_write_head(const struct http_response *a, bool is_keeping, int version_minor,
			      struct buf *out)
{
	buf_reserve(out, 256);
	if (a->status == 200) {
		buf_add_str(out, STR("HTTP/1.1 200 OK\r\n"));
	} else {
		buf_add_str(out, STR("HTTP/1.1 "));
		buf_add_u64(out, (uint64_t)a->status);
		buf_add_c(out, ' ');
		buf_add_z(out, http_reason(a->status));
		buf_add(out, "\r\n", 2);
	}
	if (a->content_type != NULL)
		http_write_field(out, STR("content-type"), str_of(a->content_type));
	if (a->status != 204 && a->status != 304) {
		buf_add_str(out, STR("content-length: "));
		buf_add_u64(out, a->body.n);
		buf_add(out, "\r\n", 2);
	}
	http_write_field(out, STR("date"), http_date());
	for (size_t i = 0; i < a->n_headers; i++)
		http_write_field(out, a->header[i].name, a->header[i].value);
	if (!is_keeping)
		buf_add_str(out, STR("connection: close\r\n"));
	else if (version_minor == 0)
		buf_add_str(out, STR("connection: keep-alive\r\n"));
	buf_add(out, "\r\n", 2);
}
