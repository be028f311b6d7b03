/* log.c - the diagnostic log.
 * The filter is an immutable table of (target prefix, level), longest prefix first, behind one atomic
 * pointer. A reader loads the pointer and never locks. A replaced table is kept in a chain for ever, since a
 * reader may still be in it: a table is tiny and replacing one is an operator's act. log_max_level is the
 * highest level in the current table; the logging macros test it first, so a line of a level that nobody
 * wants costs one relaxed load. A line is built in memory and handed over by one write(2), so lines of
 * several threads do not mix. A full pipe is waited for at most LOG_STALL_MS; then the line is dropped rather
 * than stalling a worker. */
#include "base/log.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/err.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { LOG_STALL_MS = 100 };

struct log_directive {
	str_t target;
	enum log_level level;
};

struct log_filter {
	struct log_filter *replaced; /* the table before this one */
	char *text;		     /* what the targets point into; NULL in the built-in table */
	enum log_level default_level;
	size_t n;
	struct log_directive *directive; /* longest target first */
};

static struct log_directive log_default_directives[] = {
	{{"kumod", 5}, LOG_INFO},
	{{"lua", 3}, LOG_INFO},
};
static struct log_filter log_default_filter = {.default_level = LOG_WARN,
					       .n = ARRAY_SIZE(log_default_directives),
					       .directive = log_default_directives};

static _Atomic(struct log_filter *) log_filter_now = &log_default_filter;
atomic_int log_max_level = LOG_INFO;

static __thread char log_thread_name[16];

/* ---- filter ---- */

bool log_is_enabled(enum log_level level, const char *target)
{
	const struct log_filter *f = atomic_load_explicit(&log_filter_now, memory_order_acquire);
	for (size_t i = 0; i < f->n; i++) {
		if (strncmp(target, f->directive[i].target.p, f->directive[i].target.n) == 0)
			return level <= f->directive[i].level;
	}
	return level <= f->default_level;
}

static bool log_level_parse(str_t s, enum log_level *out)
{
	static const char *const name[] = {"off", "error", "warn", "info", "debug", "trace"};
	for (size_t i = 0; i < ARRAY_SIZE(name); i++) {
		if (str_ieq(s, str_of(name[i])) || (s.n == 1 && s.p[0] == (char)('0' + i))) {
			*out = (enum log_level)i;
			return true;
		}
	}
	return false;
}

static bool log_target_is_ok(str_t s)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		bool is_ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			     c == '_' || c == ':' || c == '-' || c == '.';
		if (!is_ok)
			return false;
	}
	return true;
}

/* target[span{field=value}]=level, every part optional. An empty target sets the default. */
static bool log_directive_parse(str_t s, struct log_directive *out)
{
	str_t level = STR_NULL, target = s;
	ptrdiff_t open = str_chr(s, '[', 0);
	bool has_span = open >= 0, has_level;
	if (has_span) {
		ptrdiff_t close = -1;
		for (ptrdiff_t i = str_chr(s, ']', (size_t)open); i >= 0; i = str_chr(s, ']', (size_t)i + 1))
			close = i;
		if (close < 0)
			return false;
		target = str_head(s, (size_t)open);
		level = str_skip(s, (size_t)close + 1);
		has_level = level.n != 0;
		if (has_level && level.p[0] != '=')
			return false;
		level = str_skip(level, 1);
	} else {
		ptrdiff_t eq = str_chr(s, '=', 0);
		has_level = eq >= 0;
		if (has_level) {
			target = str_head(s, (size_t)eq);
			level = str_skip(s, (size_t)eq + 1);
		} else if (log_level_parse(s, &out->level)) {
			out->target = STR_NULL;
			return true;
		}
	}
	target = str_trim(target);
	out->level = LOG_TRACE;
	if ((has_level && !log_level_parse(str_trim(level), &out->level)) || !log_target_is_ok(target) ||
	    (target.n == 0 && !has_span))
		return false;
	out->target = target;
	return true;
}

/* Cuts at the next comma outside of brackets. */
static str_t log_directive_cut(str_t *rest)
{
	size_t i = 0;
	int depth = 0;
	for (; i < rest->n && (rest->p[i] != ',' || depth > 0); i++) {
		if (rest->p[i] == '[' || rest->p[i] == '{')
			depth++;
		else if (rest->p[i] == ']' || rest->p[i] == '}')
			depth--;
	}
	str_t cut = str_head(*rest, i);
	*rest = str_skip(*rest, i + 1);
	return cut;
}

static void log_filter_free(struct log_filter *f)
{
	free(f->directive);
	free(f->text);
	free(f);
}

/* Replaces a directive for the same target, else inserts before the first shorter one. */
static void log_filter_add(struct log_filter *f, struct log_directive d)
{
	size_t at = 0;
	while (at < f->n && f->directive[at].target.n >= d.target.n) {
		if (str_eq(f->directive[at].target, d.target)) {
			f->directive[at] = d;
			return;
		}
		at++;
	}
	f->directive = xreallocarray(f->directive, f->n + 1, sizeof(*f->directive));
	memmove(f->directive + at + 1, f->directive + at, (f->n - at) * sizeof(*f->directive));
	f->directive[at] = d;
	f->n++;
}

int log_set_filter(str_t filter)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct log_filter *f = xnew(struct log_filter);
	f->text = str_dup(filter);
	f->default_level = LOG_ERROR;
	str_t rest = str_mk(f->text, filter.n);
	enum log_level max = LOG_OFF;
	while (rest.n != 0) {
		struct log_directive d;
		str_t one = str_trim(log_directive_cut(&rest));
		if (one.n == 0)
			continue;
		if (!log_directive_parse(one, &d)) {
			err_set(ERR_INVALID, "parsing log filter '" STR_FMT "': invalid filter directive",
				STR_ARG(filter));
			log_filter_free(f);
			return -1;
		}
		if (d.target.n == 0)
			f->default_level = d.level;
		else
			log_filter_add(f, d);
	}
	for (size_t i = 0; i < f->n; i++)
		max = f->directive[i].level > max ? f->directive[i].level : max;
	max = f->default_level > max ? f->default_level : max;
	pthread_mutex_lock(&lock);
	f->replaced = atomic_load(&log_filter_now);
	atomic_store_explicit(&log_filter_now, f, memory_order_release);
	atomic_store_explicit(&log_max_level, (int)max, memory_order_relaxed);
	pthread_mutex_unlock(&lock);
	return 0;
}

/* ---- lines ---- */

void log_set_thread_name(const char *name)
{
	strncpy(log_thread_name, name, sizeof(log_thread_name) - 1);
	if (gettid() != getpid()) /* the main thread's name is the process's: leave that alone */
		pthread_setname_np(pthread_self(), log_thread_name);
}

static const char *log_thread_name_get(void)
{
	if (UNLIKELY(log_thread_name[0] == 0)) {
		if (gettid() == getpid() ||
		    pthread_getname_np(pthread_self(), log_thread_name, sizeof(log_thread_name)) != 0 ||
		    log_thread_name[0] == 0)
			memcpy(log_thread_name, "main", 5);
	}
	return log_thread_name;
}

static bool log_is_control(char c)
{
	unsigned char u = (unsigned char)c;
	return (u < 0x20 && u != '\t' && u != '\n') || u == 0x7f;
}

/* Rewrites what follows `from` when there is a control byte in it: a log line must not drive a terminal. */
static void log_line_escape(struct buf *line, size_t from)
{
	size_t i = from;
	while (i < line->n && !log_is_control(line->p[i]))
		i++;
	if (i == line->n)
		return;
	struct buf safe = BUF_INIT;
	buf_add(&safe, line->p, i);
	for (; i < line->n; i++) {
		if (log_is_control(line->p[i]))
			buf_printf(&safe, "\\x%02X", (unsigned char)line->p[i]);
		else
			buf_add_c(&safe, line->p[i]);
	}
	buf_fini(line);
	*line = safe;
}

static void log_line_write(const struct buf *line)
{
	size_t done = 0;
	bool has_waited = false;
	while (done < line->n) {
		ssize_t n = write(STDERR_FILENO, line->p + done, line->n - done);
		if (n >= 0) {
			done += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};
		if (errno != EAGAIN || has_waited || poll(&fd, 1, LOG_STALL_MS) <= 0)
			return;
		has_waited = true;
	}
}

void log_write(enum log_level level, const char *target, const char *fmt, ...)
{
	static const char name[][6] = {"  OFF", "ERROR", " WARN", " INFO", "DEBUG", "TRACE"};
	int saved_errno = errno;
	struct buf line = BUF_INIT;
	va_list ap;
	buf_reserve(&line, 255);
	wall_fmt_rfc3339(wall_now(), 6, &line);
	buf_printf(&line, " %s %s ", name[level <= LOG_TRACE ? level : LOG_TRACE], log_thread_name_get());
	size_t from = line.n;
	buf_add_z(&line, target);
	buf_add(&line, ": ", 2);
	va_start(ap, fmt);
	buf_vprintf(&line, fmt, ap);
	va_end(ap);
	log_line_escape(&line, from);
	buf_add_c(&line, '\n');
	log_line_write(&line);
	buf_fini(&line);
	errno = saved_errno;
}
