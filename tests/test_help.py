"""``help()`` on a public name is enough to use it: every parameter is spoken of."""

import inspect
import re
import types

import minicnn as mc


def public_objects():
    """Yield (name, object) of all that users reach by ``mc.``, the rooms of ``mc`` included."""
    rooms = {"mc": mc, "data.transforms": mc.data.transforms, "engine": inspect.getmodule(mc.Model)}
    rooms |= {
        name: getattr(mc, name)
        for name in mc.__all__
        if isinstance(getattr(mc, name), types.ModuleType)
    }
    seen = set()
    for room, module in rooms.items():
        for name in getattr(module, "__all__", None) or vars(module):
            value = getattr(module, name)
            home = getattr(value, "__module__", None) or ""
            ours = callable(value) and home.startswith("minicnn") and not name.startswith("_")
            if ours and id(value) not in seen:
                seen.add(id(value))
                yield f"{room}.{name}", value


def documented_calls():
    """Yield (name, function, texts that help shows of it) of every public function, constructor
    and method. A method may rely on what is said of its class, and inherits what it does not say.
    """
    for name, value in public_objects():
        if not inspect.isclass(value):
            yield name, value, [inspect.getdoc(value)]
            continue
        texts = [inspect.getdoc(value)]
        if not getattr(value, "_is_protocol", False):  # a protocol is not called
            yield name, value, [*texts, inspect.getdoc(value.__init__)]
        for method, entry in vars(value).items():
            function = getattr(value, method, None)
            if method.startswith("_") or not inspect.isroutine(function):
                continue
            texts_of_method = [inspect.getdoc(function), *texts]
            yield f"{name}.{method}", getattr(entry, "__func__", entry), texts_of_method


def test_every_parameter_of_a_public_name_is_spoken_of():
    unspoken = []
    for name, call, texts in documented_calls():
        try:
            parameters = inspect.signature(call).parameters
        except ValueError:  # NamedTuples and enumerations of the C library
            continue
        assert texts[0], f"{name} has no docstring"
        text = "\n".join(text for text in texts if text)
        words = set(re.findall(r"\w+", text))
        missing = [p for p in parameters if p not in {"self", "cls"} and p not in words]
        if missing:
            unspoken.append(f"{name}({', '.join(parameters)}): {', '.join(missing)}")
    assert not unspoken, f"{len(unspoken)} not told by help():\n" + "\n".join(unspoken)
