/* version.h - CIRRUS_VERSION comes from the build. */
#pragma once

#ifndef CIRRUS_VERSION
#error "the build defines CIRRUS_VERSION"
#endif
