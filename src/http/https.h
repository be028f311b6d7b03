/* https.h - TLS in front of the HTTP service: the handshake that a connection begins with. */
#pragma once

#include "http/http.h"
#include "net/tls_source.h"

/** The protocols that a listener offers, for its tls_source. */
extern const char *const https_alpn[];

/** The listener's `setup`, with the struct tls_source as its argument. */
http_setup_fn https_setup;
