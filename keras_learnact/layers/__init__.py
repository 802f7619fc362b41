"""Every activation of the package, one line each: the only list."""

from keras_learnact.layers.acon import ACONC as ACONC
from keras_learnact.layers.acon import Swish as Swish
from keras_learnact.layers.apa import AGLU as AGLU
from keras_learnact.layers.apa import APA as APA
from keras_learnact.layers.apl import APL as APL
from keras_learnact.layers.base import LearnableActivation as LearnableActivation
from keras_learnact.layers.base import Parameter as Parameter
from keras_learnact.layers.bspline import BSpline as BSpline
from keras_learnact.layers.cubic_relu import CubicReLU as CubicReLU
from keras_learnact.layers.deu import DEU as DEU
from keras_learnact.layers.ditac import DiTAC as DiTAC
from keras_learnact.layers.eelu import EELU as EELU
from keras_learnact.layers.expression import Expression as Expression
from keras_learnact.layers.group_kan import GroupKANDense as GroupKANDense
from keras_learnact.layers.hermite import Hermite as Hermite
from keras_learnact.layers.maxout import Maxout as Maxout
from keras_learnact.layers.maxout import MaxoutConv2D as MaxoutConv2D
from keras_learnact.layers.maxout import MaxoutDense as MaxoutDense
from keras_learnact.layers.meta_acon import MetaACONC as MetaACONC
from keras_learnact.layers.mixture import Mixture as Mixture
from keras_learnact.layers.pau import PAU as PAU
from keras_learnact.layers.pelu import PELU as PELU
from keras_learnact.layers.prelu import PReLU as PReLU
from keras_learnact.layers.pwlu import PWLU as PWLU
from keras_learnact.layers.rpau import RPAU as RPAU
from keras_learnact.layers.rrelu import RReLU as RReLU
from keras_learnact.layers.slaf import SLAF as SLAF
from keras_learnact.layers.smu import SMU as SMU
from keras_learnact.layers.snake import Snake as Snake
from keras_learnact.layers.srelu import SReLU as SReLU

__all__ = [name for name, value in list(globals().items()) if isinstance(value, type)]
