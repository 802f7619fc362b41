"""Rules for custom_ops/BUILD; flags and the list of kernels are those of build.py."""

load("@installed//:facts.bzl", "FLAGS", "KERNELS", "LINK", "TARGETS")

def kernels(name, deps):
    """Every kernel of kernels/all.h for every instruction set, and what they need.

    Args:
      name: of the library.
      deps: the headers.
    """
    parts = []
    for kernel, header in KERNELS.items():
        for target, machine in TARGETS.items():
            part = "{}_{}_{}".format(name, kernel, target)
            native.cc_library(
                name = part,
                srcs = ["cpu.cc"],
                copts = FLAGS + machine,
                linkstatic = True,
                local_defines = [
                    "KLA_KERNEL=" + kernel,
                    "KLA_HEADER='\"kernels/{}\"'".format(header),
                    "KLA_TARGET=" + target,
                ],
                deps = deps,
            )
            parts.append(part)
    native.cc_library(
        name = name,
        srcs = [
            "runtime/dispatch.cc",
            "runtime/pool.cc",
        ],
        copts = FLAGS,
        linkopts = ["-pthread"],
        linkstatic = True,
        visibility = ["//visibility:public"],
        deps = deps + parts,
    )

def custom_op_library(name, srcs, deps = [], framework = None):
    """A library lib{name}.so with all kernels for one framework.

    Args:
      name: of the library.
      srcs: the framework's binding.
      deps: what it is compiled with.
      framework: the name of the framework's own library, which is there when this one is loaded.
    """
    inputs = ["exports.lds"]
    linkopts = LINK + ["-Wl,--version-script=$(location exports.lds)"]
    if framework:
        # An empty library of that name, so that the real one is found by it.
        native.cc_binary(
            name = framework,
            linkopts = ["-Wl,-soname," + framework],
            linkshared = True,
        )
        inputs.append(framework)
        linkopts += ["-Wl,--no-as-needed", "$(location {})".format(framework), "-Wl,--as-needed"]
    native.cc_binary(
        name = "lib{}.so".format(name),
        srcs = srcs + ["runtime/old_glibc.cc"],
        additional_linker_inputs = inputs,
        copts = FLAGS,
        linkopts = linkopts,
        linkshared = True,
        visibility = ["//visibility:public"],
        deps = deps,
    )
