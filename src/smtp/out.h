/* out.h - the SMTP client as a deliverer: RFC 5321 over
 * plain TCP with PIPELINING, 8BITMIME, SIZE and SMTPUTF8. */
#pragma once

#include "queue/deliverer.h"

extern const struct deliverer smtp_deliverer;
