/* message_header.h - the header of a message as one: its prefix, then that of its body. The body must be in
 * memory. What changes it makes a new prefix or a new body; bodies themselves never change, other messages
 * may share them. Nothing here yields. */
#pragma once

#include "mime/header.h"
#include "mail/message.h"

struct message_header_iter {
	struct header_iter it;
	str_t body; /* still to come; p NULL once it is being read */
};
void message_header_iter_init(struct message_header_iter *it, const struct message *m);
/** Slices of the message's own bytes. */
bool message_header_next(struct message_header_iter *it, struct header_field *out);
/** The first of that name, in any case. */
bool message_header_find(const struct message *m, str_t name, struct header_field *out);

/** Puts whole fields, each with its CRLF, after all others: a copy of the body. (Before all others:
 * message_add_prefix.) */
void message_append_header(struct message *m, str_t fields);
/** Takes out the fields that match says. Copies the body only if it has one of them. Returns how many there
 * were. */
typedef bool message_header_match_fn(str_t name, void *arg);
size_t message_remove_headers(struct message *m, message_header_match_fn *match, void *arg);

/* --- header fields into metadata (docs/reference/message/import_headers) --- */
enum header_match { HEADER_FIRST, HEADER_LAST, HEADER_ALL };
enum header_transform { HEADER_SNAKE_CASE, HEADER_KEBAB_CASE, HEADER_CAMEL_CASE, HEADER_PASCAL_CASE };
struct header_import {
	str_t name;	 /* in any case */
	bool is_prefix;	 /* `name` is how it begins */
	bool is_removed; /* those that match are taken out of the message */
	enum header_match match;
	enum header_transform transform;
	str_t target; /* key of the metadata; p NULL: made of the name by `transform` */
};
/** Each field goes by the first of the specs that matches its name. Sets the metadata spec by spec: decoded
 * values, an array for HEADER_ALL. -1 ERR_LIMIT for more than 1024 keys, with nothing changed. */
MUST_CHECK int message_import_headers(struct message *m, const struct header_import *spec, size_t n);
