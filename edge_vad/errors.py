"""Every error that edge-vad raises on purpose.

    EdgeVadError
    |-- SourceError            footage or a camera cannot be opened or read
    |-- LabelError             ground-truth labels do not fit the footage
    |-- ProfileError           a profile or a setting is wrong
    |-- EncoderError           an encoder cannot be exported, quantised or used
    |-- NetworkError           a trained network cannot be read, does not fit, or its training failed
    |-- BackendError           a backend or device that was asked for is not there
    |-- PluginError            a named camera, backend, bank, method or sink does not exist
    |-- MissingPackageError    an optional package is not installed
    |-- ForeignMemoryError     a memory bank of another program cannot be read, or does not fit
    |-- EngineError            the workers of a build cannot be reached, or keep dying
    |-- OutputError            a result cannot be written
    |-- ProvisionError         an overlay for a unit cannot be put together
    |-- KeyFileError           a key file is missing, damaged, or its password is wrong
    |-- ReportError            a report of bench cannot be read or compared
    |-- StoreError             the store of bundles has not what was asked for, or is in use
    `-- BundleError            a bundle cannot be used
        |-- BundleFormatError      it is not a bundle, or breaks the format's rules
        |-- BundleModelError       a model in it breaks the rules for models
        |-- BundleIntegrityError   a hash, a size or a fingerprint does not match
        |-- BundleSignatureError   it is not signed by a trusted key, or the signature does not hold
        |-- BundleVersionError     it was written for another major version
        |-- BundleTargetError      it is older than what ran here, or made for other devices
        `-- SelfTestError          this device computes something else than the one that built it

The message says what is wrong, where, and what to do. A programmer's mistake (a wrong shape) stays ``ValueError``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgeVadError(Exception):
    """Base of all errors a caller may want to catch; the command line prints it on one line and exits with 1."""


class SourceError(EdgeVadError):
    """Footage or a camera cannot be opened or read."""


class LabelError(EdgeVadError):
    """Ground-truth labels are missing or do not fit the footage."""


class ProfileError(EdgeVadError):
    """A profile or a single setting has an unknown key, a wrong type or a value out of range."""


class EncoderError(EdgeVadError):
    """An encoder cannot be exported, quantised, or does not have the outputs that were named."""


class NetworkError(EdgeVadError):
    """A trained network cannot be read, is not the one that was asked for, or its training diverged."""


class BackendError(EdgeVadError):
    """A backend or device that was asked for is not available here, or failed."""


class PluginError(EdgeVadError):
    """A camera, backend, bank, method or sink of that name does not exist."""


class MissingPackageError(EdgeVadError):
    """An optional package is needed and not installed; the message holds the pip command."""


class ForeignMemoryError(EdgeVadError):
    """A memory bank of another program cannot be read, or does not fit the encoder, the settings or the footage."""


class EngineError(EdgeVadError):
    """The workers of a build cannot be reached, differ from the machine that builds, or keep dying over a task."""


class OutputError(EdgeVadError):
    """A result cannot be written; nothing half-written is left behind."""


class ProvisionError(EdgeVadError):
    """A wheel that an overlay needs cannot be had, or its parts do not fit together."""


class KeyFileError(EdgeVadError):
    """A key file is missing or damaged, or its password is wrong."""


class ReportError(EdgeVadError):
    """A report of bench is damaged, of another schema, or cannot be compared with another one."""


class StoreError(EdgeVadError):
    """The store of bundles does not have what was asked for, or another process is using it."""


class BundleError(EdgeVadError):
    """A bundle cannot be used."""


class BundleFormatError(BundleError):
    """The file is not a bundle, or breaks a rule of the format."""


class BundleModelError(BundleError):
    """A model in the bundle breaks the rules for models: external data, an operator that is not allowed, a size."""


class BundleIntegrityError(BundleError):
    """A size, a hash or a fingerprint in the bundle does not match its content."""


class BundleVersionError(BundleError):
    """The bundle was written for another major version of the format."""


class BundleSignatureError(BundleError):
    """The bundle is not signed by a trusted key, or its signature does not hold."""


class BundleTargetError(BundleError):
    """The bundle is older than one that ran here, or was made for other devices."""


class SelfTestError(BundleError):
    """The golden self-test failed: this device computes something else than the one that built the bundle."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the known word nearest to ``word``, or the whole list when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(known)})"
