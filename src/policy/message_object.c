/* message_object.c - messages as values of a policy. The userdata holds a reference,
 * but only for the call in hand: Lua collects garbage when it likes, and a pooled
 * state that keeps bodies alive until then would hold memory that nobody can account
 * for. So the boxes of a call are listed in its state and emptied at its end. */
#include "base/err.h"
#include "policy/policy_impl.h"
#include "policy/value.h"

#include <lauxlib.h>

static const char message_class_key, message_methods_key;
static policy_load_meta_fn *message_load_meta;

void policy_set_meta_loader(policy_load_meta_fn *load)
{
	message_load_meta = load;
}

static int message_on_gc(lua_State *L)
{
	struct message_box *b = lua_touserdata(L, 1);
	list_remove(&b->link);
	message_unref(b->msg);
	b->msg = NULL;
	return 0;
}

static int message_on_tostring(lua_State *L)
{
	const struct message *m = policy_check_message(L, 1);
	lua_pushfstring(L, "Message: %p", (const void *)m);
	return 1;
}

static int message_on_eq(lua_State *L)
{
	lua_pushboolean(L, policy_check_message(L, 1) == policy_check_message(L, 2));
	return 1;
}

static void message_push_class(lua_State *L)
{
	static const luaL_Reg methods[] = {{"__gc", message_on_gc},
					   {"__tostring", message_on_tostring},
					   {"__eq", message_on_eq},
					   {NULL, NULL}};
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &message_class_key) == LUA_TTABLE)
		return;
	lua_pop(L, 1);
	luaL_newlib(L, methods);
	lua_pushliteral(L, "Message");
	lua_setfield(L, -2, "__name");
	lua_pushboolean(L, false);
	lua_setfield(L, -2, "__metatable");
	policy_push_message_class(L);
	lua_setfield(L, -2, "__index");
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &message_class_key);
}

void policy_push_message_class(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &message_methods_key) == LUA_TTABLE)
		return;
	lua_pop(L, 1);
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &message_methods_key);
}

static struct message_box *message_push_box(lua_State *L, struct message *m)
{
	struct message_box *b = lua_newuserdatauv(L, sizeof(*b), 0);
	*b = (struct message_box){0};
	list_init(&b->link);
	message_push_class(L);
	lua_setmetatable(L, -2);
	b->msg = message_ref(m);
	list_push_back(&policy_state_of(L)->messages, &b->link);
	return b;
}

void policy_push_message(lua_State *L, struct message *m)
{
	message_push_box(L, m);
}

void policy_push_message_to_read(lua_State *L, struct message *m)
{
	message_push_box(L, m)->is_read_only = true;
}

static struct message_box *message_check_box(lua_State *L, int idx)
{
	struct message_box *b = lua_touserdata(L, idx);
	bool is_ours = false;
	if (b != NULL && lua_type(L, idx) == LUA_TUSERDATA && lua_getmetatable(L, idx)) {
		lua_rawgetp(L, LUA_REGISTRYINDEX, &message_class_key);
		is_ours = lua_rawequal(L, -1, -2);
		lua_pop(L, 2);
	}
	if (!is_ours)
		luaL_typeerror(L, idx, "Message");
	if (b->msg == NULL)
		luaL_argerror(L, idx,
			      b->why_gone != NULL ? b->why_gone
						  : "this message belonged to an event that is over");
	return b;
}

struct message *policy_check_message(lua_State *L, int idx)
{
	struct message *m = message_check_box(L, idx)->msg;
	if (m->is_meta_shed && message_load_meta(m, policy_deadline(L)) != 0)
		policy_raise(L);
	return m;
}

struct message *policy_check_message_to_edit(lua_State *L, int idx)
{
	struct message_box *b = message_check_box(L, idx);
	policy_check_message(L, idx);
	if (b->is_read_only) {
		const char *event = policy_current_event(L);
		luaL_argerror(L, idx,
			      lua_pushfstring(L, "the event `%s` may look at the message but not change it",
					      event != NULL ? event : "?"));
	}
	return b->msg;
}

void policy_forget_message(lua_State *L, int idx, const char *why)
{
	struct message_box *b = message_check_box(L, idx);
	list_remove(&b->link);
	message_unref(b->msg);
	b->msg = NULL;
	b->why_gone = why;
}

int message_boxes_complete(struct policy_state *st, mono_t deadline)
{
	for (struct list *l = st->messages.next; l != &st->messages; l = l->next) {
		struct message *m = list_entry(l, struct message_box, link)->msg;
		bool is_held = atomic_load_explicit(&m->refs, memory_order_relaxed) > 1;
		if (!m->is_meta_shed || !is_held)
			continue;
		struct err e = err_take();
		if (message_load_meta(m, deadline) != 0) {
			err_fini(&e);
			return -1;
		}
		err_put(e);
	}
	return 0;
}

void message_boxes_release(struct policy_state *st)
{
	struct list *l;
	while ((l = list_pop_front(&st->messages)) != NULL) {
		struct message_box *b = list_entry(l, struct message_box, link);
		message_unref(b->msg);
		b->msg = NULL;
	}
}
