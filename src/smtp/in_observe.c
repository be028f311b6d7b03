/* in_observe.c - the one place that sees all of a session. What is seen goes to the observer, if there is
 * one, and to the diagnostic log at level trace. */
#include "smtp/in_impl.h"

_Atomic(struct in_observer *) in_observer;

void in_set_observer(struct in_observer *o)
{
	atomic_store(&in_observer, o);
}

static const char *in_sight_name(enum in_sight kind)
{
	static const char *const names[] = {"connected",  "closed",   "C",	    "S",
					    "diagnostic", "callback", "disposition"};
	return names[kind];
}

static void in_see_log(const struct in_session *s, const struct in_seen *w)
{
	char peer[NET_ADDR_STRLEN];
	str_t text = str_head(str_trim(w->text), 1024);
	log_trace(IN_LOG, "%s %s: %s%s" STR_FMT "%s" STR_FMT, net_addr_fmt(&s->peer, peer),
		  in_sight_name(w->kind), w->name != NULL ? w->name : "", w->name != NULL ? " " : "",
		  STR_ARG(text), w->error.n > 0 ? " raised " : "", STR_ARG(str_head(w->error, 1024)));
}

void in_see(struct in_session *s, const struct in_seen *what)
{
	struct in_observer *o = atomic_load_explicit(&in_observer, memory_order_acquire);
	if (o != NULL)
		o->see(o, &s->conn, what);
	if (log_is_enabled(LOG_TRACE, IN_LOG))
		in_see_log(s, what);
}
