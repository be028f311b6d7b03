/* bind_mime.c - kumo.mimepart with its builder, and the classes that go with it, into each state. The builder
 * gathers parts; build composes them into a message of the usual shape (mime_part_compose) and empties it. */
#include "base/alloc.h"
#include "base/err.h"
#include "bind/bind_mime_impl.h"

#include <lauxlib.h>
#include <stdlib.h>

static const char *const builder_class = "MimePartBuilder";

struct mime_builder {
	struct mime_part *text, *html, *amp;
	struct mime_part **attachment;
	size_t n_attachments, cap;
	bool is_stable, is_built;
};

static void builder_empty(struct mime_builder *b)
{
	mime_part_unref(b->text);
	mime_part_unref(b->html);
	mime_part_unref(b->amp);
	for (size_t i = 0; i < b->n_attachments; i++)
		mime_part_unref(b->attachment[i]);
	free(b->attachment);
	*b = (struct mime_builder){.is_built = b->is_built};
}

static int builder_on_gc(lua_State *L)
{
	builder_empty(luaL_checkudata(L, 1, builder_class));
	return 0;
}

static struct mime_builder *builder_check(lua_State *L)
{
	struct mime_builder *b = luaL_checkudata(L, 1, builder_class);
	luaL_argcheck(L, !b->is_built, 1, "this builder has built its message already");
	return b;
}

static int builder_new(lua_State *L)
{
	struct mime_builder *b = lua_newuserdatauv(L, sizeof(*b), 0);
	*b = (struct mime_builder){0};
	luaL_setmetatable(L, builder_class);
	return 1;
}

static void builder_set_text(lua_State *L, struct mime_part **slot, str_t type)
{
	bind_push_text_part(L, 2, type);
	mime_part_unref(*slot);
	*slot = mime_part_ref(bind_check_mime_part(L, -1));
}

static int builder_text_plain(lua_State *L)
{
	builder_set_text(L, &builder_check(L)->text, STR("text/plain"));
	return 0;
}

static int builder_text_html(lua_State *L)
{
	builder_set_text(L, &builder_check(L)->html, STR("text/html"));
	return 0;
}

static int builder_text_amp_html(lua_State *L)
{
	builder_set_text(L, &builder_check(L)->amp, STR("text/x-amp-html"));
	return 0;
}

static void builder_add(struct mime_builder *b, struct mime_part *p)
{
	if (b->n_attachments == b->cap) {
		b->cap = b->cap == 0 ? 4 : b->cap * 2;
		b->attachment = xreallocarray(b->attachment, b->cap, sizeof(*b->attachment));
	}
	b->attachment[b->n_attachments++] = p;
}

static int builder_attach(lua_State *L)
{
	struct mime_builder *b = builder_check(L);
	lua_settop(L, 4);
	bind_push_binary_part(L, 2);
	builder_add(b, mime_part_ref(bind_check_mime_part(L, -1)));
	return 0;
}

/* A copy: what is done to the part afterwards does not reach the message. */
static int builder_attach_part(lua_State *L)
{
	struct mime_builder *b = builder_check(L);
	builder_add(b, mime_part_copy(bind_check_mime_part(L, 2)));
	return 0;
}

static int builder_set_stable_content(lua_State *L)
{
	struct mime_builder *b = builder_check(L);
	luaL_checktype(L, 2, LUA_TBOOLEAN);
	b->is_stable = lua_toboolean(L, 2);
	return 0;
}

static int builder_build(lua_State *L)
{
	struct mime_builder *b = builder_check(L);
	struct mime_composition c = {.text = b->text,
				     .amp = b->amp,
				     .html = b->html,
				     .attachment = b->attachment,
				     .n_attachments = b->n_attachments,
				     .is_stable = b->is_stable};
	struct mime_part **box = bind_new_mime_part(L);
	*box = mime_part_compose(&c);
	if (*box == NULL)
		return policy_raise(L);
	b->is_built = true;
	builder_empty(b);
	return 1;
}

static void bind_open_mime_builder(lua_State *L)
{
	static const luaL_Reg meta[] = {{"__gc", builder_on_gc}, {NULL, NULL}};
	static const luaL_Reg methods[] = {
		{"text_plain", builder_text_plain},
		{"text_html", builder_text_html},
		{"text_amp_html", builder_text_amp_html},
		{"attach", builder_attach},
		{"attach_part", builder_attach_part},
		{"set_stable_content", builder_set_stable_content},
		{"build", builder_build},
		{NULL, NULL},
	};
	static const luaL_Reg functions[] = {{"builder", builder_new}, {NULL, NULL}};
	luaL_newmetatable(L, builder_class);
	luaL_setfuncs(L, meta, 0);
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
	luaL_setfuncs(L, functions, 0);
}

/* The table kumo is on top. */
static void mime_open(lua_State *L)
{
	bind_open_header(L);
	bind_open_header_map(L);
	bind_open_address_header(L);
	bind_open_mime_part(L); /* leaves the table of functions */
	bind_open_mime_builder(L);
	lua_setfield(L, -2, "mimepart");
	policy_push_message_class(L);
	bind_open_message_mime(L);
	lua_pop(L, 1);
}

void bind_register_mime(void)
{
	bind_register_mime_part();
	bind_register_message_mime();
	policy_add_library(mime_open);
}
