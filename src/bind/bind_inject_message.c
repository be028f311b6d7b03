/* bind_inject_message.c - kumo.inject_message (docs/reference/kumo/inject_message): what kumo.make_message or
 * kumo.api.inject.build_v1 has made goes the way of every message that comes in: its queue, the spool, the
 * record of its reception, and only then a delivery. It returns when the message is durable. From then on it
 * is the queues', on whatever worker: the policy's value is emptied, so that nobody else touches it. */
#include "bind/bind_inject_message.h"

#include "base/err.h"
#include "policy/policy.h"
#include "queue/reception.h"

#include <lauxlib.h>
#include <stdatomic.h>

typedef const char *gate_fn(void);
static _Atomic(gate_fn *) inject_gate;

void bind_inject_message_set_gate(const char *(*why_not)(void))
{
	atomic_store(&inject_gate, why_not);
}

static int inject_check(const struct message *m)
{
	gate_fn *gate = atomic_load(&inject_gate);
	const char *why = gate != NULL ? gate() : "the queues are not running yet";
	if (why != NULL) {
		err_set(ERR_UNSUPPORTED, "the message is not taken: %s", why);
		return -1;
	}
	if (!m->is_draft) {
		err_set(ERR_INVALID, "only a message that kumo.make_message or build_v1 has made can be "
				     "injected: this one has come in already");
		return -1;
	}
	if (m->size_bytes == 0) {
		err_set(ERR_INVALID, "a message without any data cannot be injected");
		return -1;
	}
	return 0;
}

/* On success m belongs to the queues: the caller may only drop its reference. */
static int inject_message(struct message *m, mono_t deadline)
{
	struct reception r;
	int rc = -1;
	if (inject_check(m) != 0)
		return -1;
	reception_init(&r, 1);
	m->is_draft = false;
	if (reception_add(&r, message_ref(m), deadline) != 0) {
		message_unref(m);
		goto out;
	}
	if (reception_store(&r, deadline) != 0)
		goto out;
	reception_enqueue(&r, &(struct record){.peer_name = STR_NULL});
	rc = 0;
out:
	if (rc != 0)
		m->is_draft = true; /* it may be tried again */
	reception_fini(&r);
	return rc;
}

static int kumo_inject_message(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	/* its queue may need a state, for which the file is run, which would inject ... */
	if (policy_current_event(L) == NULL)
		return luaL_error(
			L,
			"kumo.inject_message must be called from an event, not from the policy file itself");
	if (inject_message(m, policy_deadline(L)) != 0) {
		if (!err_is(ERR_REJECT))
			err_wrap("kumo.inject_message");
		return policy_raise(L);
	}
	policy_forget_message(L, 1, "this message was given to kumo.inject_message");
	return 0;
}

static void open_inject_message(lua_State *L)
{
	lua_pushcfunction(L, kumo_inject_message);
	lua_setfield(L, -2, "inject_message");
}

void bind_register_inject_message(void)
{
	policy_add_library(open_inject_message);
}
