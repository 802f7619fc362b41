"""Makes the pages "Activations", a table, "Gallery", each at its start and trained, and "Layers".

It asks the package which activations there are, so a new one is on the pages without being told.
"""

import inspect
import io

import keras
import latex2mathml.converter
from mkdocs.structure.files import File
from sklearn.datasets import load_digits

import keras_learnact as kla
from keras_learnact import plotting, registry

HEAD = """# Gallery

Every activation of the package. Each picture shows the function in a network of one hidden layer
with 16 units, before and after 20 epochs on the [digits], over the distribution of
its inputs; below it the formula that was learned, with its coefficients rounded.

[digits]: https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html

"""

ENTRY = """
## {name}

{summary} [Reference](reference/layers.md#{anchor})

```text
{formula}
```

{picture}
"""

PICTURE = """![{name} before and after training](gallery/{name}.svg)

<div class="formula" markdown="0">{learned}</div>
"""


TABLE = """---
hide: [navigation, toc]
---

# Activations

Every activation of the package, as `keras_learnact.activations()` gives it.

<div class="activations" markdown="0">{table}</div>
"""


LAYERS = "# Layers\n\n{references}\n"


def on_files(files, config):
    references = "\n\n".join(f"::: keras_learnact.layers.{name}" for name in kla.layers.__all__)
    layers = LAYERS.format(references=references)
    files.append(File.generated(config, "reference/layers.md", content=layers))
    activations = kla.activations()
    table = TABLE.format(table=activations._repr_html_())
    files.append(File.generated(config, "activations.md", content=table))
    page = [HEAD]
    for activation in activations:
        name, layer_class = activation.name, getattr(kla, activation.name)
        doc = inspect.getdoc(layer_class)
        picture = ""
        if issubclass(layer_class, kla.LearnableActivation):
            svg, learned = train(layer_class)
            files.append(File.generated(config, f"gallery/{name}.svg", content=svg))
            picture = PICTURE.format(name=name, learned=learned)
        head, paragraphs = registry.formula_of(doc)
        formula = "\n\n".join(filter(None, [head, *paragraphs]))
        page.append(
            ENTRY.format(
                name=name,
                summary=doc.split("\n\n")[0].replace("\n", " "),
                anchor=f"keras_learnact.layers.{name}",
                formula=formula,
                picture=picture,
            )
        )
    files.append(File.generated(config, "gallery.md", content="".join(page)))
    return files


def train(layer_class):
    """The function before and after training as a picture (SVG); what it learned, as MathML."""
    keras.utils.set_random_seed(1)
    images, labels = load_digits(return_X_y=True)
    images = images.astype("float32") / 16
    layer = layer_class(sharing="layer", name=layer_class.__name__.lower())
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(16), layer, keras.layers.Dense(10, "softmax")]
    )
    before = plotting.snapshot(model)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=64, epochs=20, verbose=0)
    svg = io.StringIO()
    plotting.plot(model, images[:500], before).savefig(svg, format="svg", transparent=False)
    return svg.getvalue(), latex2mathml.converter.convert(layer.latex(), display="block")
