"""Mistakes of users of commands: what is typed, and the words that the one sentence must have."""

from typing import NamedTuple

SMOKE = "--config=configs/digits.py:smoke"
ARM = "ARM"  # in the place of the field: the sentence names a field of an arm
DEFAULT = "WORKDIR"  # stands for a folder that does not exist


class Mistake(NamedTuple):
    """A command line that is refused."""

    module: str
    arguments: tuple[str, ...]
    words: tuple[str, ...]  # of the sentence
    workdir: str | None = DEFAULT  # None: not given

    @property
    def name(self):
        return " ".join([self.module.removeprefix("experiments."), *self.arguments])


def _fields(module, config, table):
    """Return a mistake for each wrong value of a field, named with what it was."""
    found = []
    for line in table.strip().splitlines():
        field, rest = line.strip().split("=", 1)
        value, *words = (part.strip() for part in rest.split(" | "))
        told = words or [value]
        named = () if told[0] == ARM else (field,)
        words = (*named, *(word for word in told if word != ARM))
        found.append(Mistake(module, (*config, f"--config.{field}={value}"), words))
    return found


# FIELD=VALUE, and after bars what the sentence says of the value, where that is not the value.
TRAINING = _fields(
    "sam_jax.train",
    (SMOKE,),
    """
    seed=-1
    seed=1.5
    epochs=0
    epochs=many
    batch_size=0
    batch_size=65 | larger than the training set
    steps_per_call=-1
    on_nonfinite=stopp | Did you mean 'stop'?
    divergence_factor=-1.0
    writers=tensorboard | must be a tuple
    writers=('wandbb',) | Did you mean 'wandb'?
    writers=('mlflow','mlflow') | different items
    matmul_precision=higest | Did you mean 'highest'?
    mesh=(("data",0),) | (('data', 0),)
    mesh=(("data",3),) | do not take the
    split_parameters=("dat",) | Did you mean 'data'?
    step_form=shardmap | Did you mean 'shard_map'?
    data.name=cifr10 | Did you mean 'cifar10'
    data.train_examples=-1
    data.train_examples=65 | 64 training examples
    data.validation_examples=-1
    data.validation_examples=64 | 64 training examples
    data.image_size=-1
    data.label_noise=1.5
    data.label_noise=nan
    data.label_noise_kind=symetric | Did you mean 'symmetric'?
    data.label_noise_seed=-1
    data.synthetic_examples=-1
    data.streaming=allways | Did you mean 'always'?
    data.augmentation=flip | must be a tuple
    data.augmentation=("flip") | must be a tuple
    data.augmentation=("flp",) | Did you mean 'flip'?
    data.pad=-1
    data.pad=1.5
    data.cutout_size=0
    data.randaugment_layers=0
    data.randaugment_magnitude=31
    data.mixup=-1.0
    data.mixup=nan
    model.name=restnet | Did you mean 'resnet'?
    model.dtype=float3 | Did you mean 'float32'?
    method.name=sma | Did you mean 'sam'?
    method.rho=-0.1
    method.rho=nan
    method.rho=inf
    method.rho=abc
    method.norm_order=1.0
    method.eta=-1.0
    method.m=-1
    method.m=5 | = 5 | 32
    method.synchronise=locl | Did you mean 'local'?
    method.from_share=1.0
    method.until_share=0.0
    method.strategy=scn | Did you mean 'scan'?
    method.statistics_from=clan | Did you mean 'clean'?
    method.gsam.alpha=-1.0
    method.looksam.k=0
    method.ss_sam.probability=1.5
    method.esam.beta=0.0
    method.asam.rescaling=elment | Did you mean 'element'?
    method.vasso.theta=2.0
    method.saf.tau=0.0
    method.mesa.decay=1.0
    optimiser.name=adam | Did you mean 'adamw'?
    optimiser.learning_rate=-0.1
    optimiser.learning_rate=nan
    optimiser.learning_rate=inf
    optimiser.warmup_epochs=-1.0
    optimiser.warmup_epochs=nan
    optimiser.warmup_epochs=2.0
    optimiser.schedule=cosin | Did you mean 'cosine'?
    optimiser.exponential.end=0.0
    optimiser.piecewise.boundaries=(0.7,0.5) | ascending | (0.7, 0.5)
    optimiser.piecewise.factors=(0.1,) | (0.1,)
    optimiser.momentum=-0.1
    optimiser.momentum=1.0
    optimiser.momentum=nan
    optimiser.nesterov=maybe
    optimiser.rmsprop.epsilon=0.0
    optimiser.adamw.beta1=1.0
    optimiser.clip_norm=-1.0
    optimiser.clip_norm=nan
    optimiser.weight_decay=-1.0
    optimiser.weight_decay=nan
    optimiser.weight_decay_on=norms | Did you mean 'not_norms'?
    optimiser.weight_decay_in=updates | Did you mean 'update'?
    weight_average.name=ewa | Did you mean
    weight_average.decay=2.0
    weight_average.start=5.0
    weight_average.every_epochs=0.0
    weight_average.ema_start_epochs=2.0
    loss.name=cross_entrpy | Did you mean 'cross_entropy'?
    loss.label_smoothing=-0.1
    loss.label_smoothing=nan
    loss.label_smoothing=1.0
    loss.generalised_cross_entropy.q=0.0
    loss.smallest_cross_entropy.removed=1.0
    fine_tune.epoch=-1
    fine_tune.epoch=1 | fine_tune.workdir
    fine_tune.workdir=/nowhere
    evaluation.batch_size=0
    evaluation.test_every_epochs=-1
    evaluation.train_every_epochs=-1
    evaluation.sharpness_every_epochs=-1
    evaluation.sharpness_every_epochs=0.5
    evaluation.top_k=(1,)
    evaluation.top_k=(11,)
    checkpoint.every_epochs=-1
    checkpoint.keep=0
    instruments.seed=-1
    instruments.examples=-1
    instruments.adversarial.rho=(0.0,)
    instruments.average.draws=0
    instruments.asymmetry.distance=-1.0
    instruments.curve.points=1
    instruments.hessian.steps=0
    instruments.loss_line.points=4
    instruments.loss_line.batch_norm=runing | Did you mean 'running'?
    instruments.worst_case_sharpness.step_rule=adaptve | Did you mean 'adaptive'?
    instruments.top_eigenvalues.count=50
    method.roh=0.1 | Did you mean 'method.rho'?
    metod.rho=0.1 | Did you mean 'method.rho'?
    method=3
    """,
)

TRAIN_LINES = [
    Mistake("sam_jax.train", arguments, words, *workdir)
    for arguments, words, *workdir in [
        ((), ("--config", "is missing")),
        (("--config=configs/digit.py",), ("configs/digit.py", "Did you mean 'configs/digits.py'?")),
        (("--config=configs",), ("no config file 'configs'",)),
        (("--config=",), ("--config", "no config file ''")),
        (("--config=README.md",), ("README.md", "SyntaxError")),
        (("--config=configs/__init__.py",), ("configs/__init__.py", "get_config")),
        (("--config=configs/digits.py:smok",), ('only variant is "smoke"', "'smok'")),
        ((SMOKE, "--confg=3"), ("confg", "config")),
        (
            ("--config=configs/digits.py", "--config.data.train_split=trian"),
            ("data.train_split", "'trian'"),
        ),
        ((SMOKE, "extra"), ("extra",)),
        ((SMOKE, "--accept_config_changes=3"), ("accept_config_changes", "'3'")),
        ((SMOKE, "--process_count=2"), ("--distributed",)),
        (("--config.epochs=1", SMOKE), ("--config.epochs",)),
        ((SMOKE, "--config.method.rho"), ("config.method.rho",)),
        ((SMOKE,), ("--workdir", "is missing"), None),
        ((SMOKE,), ("--workdir", "''"), ""),
        ((SMOKE,), ("README.md", "is a file"), "README.md"),
        ((SMOKE,), ("README.md/below",), "README.md/below"),
        ((SMOKE,), ("files of something else", "CHANGELOG.md"), "."),
    ]
]

EVALUATE = [
    Mistake("sam_jax.evaluate", arguments, words, *workdir)
    for arguments, words, *workdir in [
        ((), ("holds no config.json",)),
        ((), ("--workdir", "is missing"), None),
        ((), ("--workdir", "''"), ""),
        ((), ("of no training", "models/NAME/seed_S"), "tests/experiments/workdirs/variants"),
        (("--presets=sund",), ("presets", "sund", "Did you mean 'sound'?")),
        (("--presets=",), ("presets", "none")),
        (("--measures=hesian",), ("measures", "hesian", "Did you mean 'hessian'?")),
        (("--measures=",), ("measures", "none")),
        (("--measures=hessian", "--presets=published"), ("hessian", "published")),
        (("--epoch=abc",), ("epoch", "abc")),
        (("--measure=hessian",), ("measure", "measures")),
        (("extra",), ("extra",)),
    ]
]

# The targets stand in tests/own_targets.py.
OWN_CHECKPOINT = [
    Mistake("sam_jax.evaluate", (f"--checkpoint={path}", f"--target={target}", *rest), words)
    for path, target, words, *rest in [
        ("/nowhere", "own_targets:small", ("no checkpoint /nowhere",)),
        ("READMEE.md", "own_targets:small", ("no checkpoint", "Did you mean", "/README.md'?")),
        ("README.md", "own_targets:small", ("README.md", "neither a folder of orbax")),
        ("configs", "own_targets:small", ("configs", "no checkpoint of orbax")),
        ("README.md", "own_targets", ("MODULE:FUNCTION", "'own_targets'")),
        ("README.md", "own_target:small", ("no module 'own_target'",)),
        ("README.md", "configs/digit.py:f", ("as Python imports it", "'configs.digits'")),
        ("README.md", "own_targets:smal", ("no function 'smal'", "Did you mean 'small'?")),
        ("README.md", "own_targets:fails", ("own_targets:fails fails: KeyError", "no data")),
        ("README.md", "own_targets:dictionary", ("must return a", "Target, got dict")),
        ("README.md", "own_targets:no_params", ('dict with "params"',)),
        ("README.md", "own_targets:unequal_sets", ("same number of examples", "[3, 4]")),
        ("README.md", "own_targets:empty_set", ("test set", "[0]")),
        ("README.md", "own_targets:other_test_set", ("fails on its test set",)),
        ("README.md", "own_targets:mean_loss", ("one value for each example", "Leave out a mean")),
        ("README.md", "own_targets:two_outputs", ("one value for each example", "got tuple")),
        ("README.md", "own_targets:wrong_place", ("'parms'", "Did you mean 'params'?")),
        ("README.md", "own_targets:small", ("--epoch",), "--epoch=3"),
        ("README.md", "own_targets:small", ("hesian", "'hessian'"), "--measures=hesian"),
    ]
]
OWN_CHECKPOINT += [
    Mistake("sam_jax.evaluate", ("--checkpoint=README.md",), ("--target is missing",)),
    Mistake("sam_jax.evaluate", ("--target=own_targets:small",), ("--checkpoint is missing",)),
]

PREPARE = [
    Mistake("sam_jax.data.prepare", arguments, words, None)
    for arguments, words in [
        ((), ("name",)),
        (("digits",), ("digits", "nothing to prepare")),
        (("fashion_mnist", "--from_dir=/nowhere", "--data_dir=/nowhere"), ("/nowhere",)),
        (("mnist", "--dat=/nowhere", "more"), ("more",)),
        (("mnist", "--data_dri=/nowhere"), ("Did you mean '--data_dir'?",)),
    ]
]

DASHBOARD = [
    Mistake("sam_jax.dashboard", arguments, words, None)
    for arguments, words in [
        ((), ("DIR is missing",)),
        (("/nowhere",), ("DIR must name a folder", "/nowhere does not exist")),
        (("README.md",), ("DIR must name a folder", "README.md is a file")),
        (("configs", "extra"), ("extra",)),
        (("configs", "--port=65536"), ("port", "65536")),
        (("configs", "--port=abc"), ("port", "abc")),
        (("configs", "--prot=6007"), ("prot", "port")),
        (("configs", "--host=203.0.113.1"), ("--host", "203.0.113.1")),
        (("configs", "--once="), ("--once", "''")),
        (("configs", "--once=/nowhere/page.html"), ("/nowhere/page.html",)),
    ]
]

EVEN_BETTER = _fields(
    "experiments.even_better",
    ("--config=configs/even_better/digits.py:smoke",),
    """
    plane.limit=0.0
    plane.points=4
    plane.batch_norm=runing | Did you mean 'running'?
    curve.kind=chian | Did you mean 'chain'?
    curve.bends=2
    curve.epochs=0
    curve.learning_rate=-1.0
    curve.pairs=((1,2),) | ((1, 2),)
    small_batch=0
    small_batch=65 | ARM | batch_size = 65 | 64
    large_batch=16 | small_batch
    models=(("sdg","small",0.0,1),) | Did you mean 'sgd'?
    presets=("sund",) | Did you mean 'sound'?
    presets=()
    seeds=()
    seeds=(0,0) | (0, 0)
    seeds=3 | must be a tuple
    training.optimiser.momentum=2.0
    training.epochs=0
    training.instruments.curve.limit=0.0
    training.method.roh=0.1 | Did you mean 'training.method.rho'?
    training.data.train_examples=31 | ARM | instruments want 31 | m = 32
    training.instruments.examples=65 | ARM | 65 training examples | 64
    training.instruments.examples=17 | ARM | m = 32 | instruments.examples
    training.data.streaming=always | ARM | all 64 examples
    training.instruments.average.batches=9 | ARM | 144 training examples | 64
    """,
)

STUDIES = [
    *EVEN_BETTER,
    *_fields(
        "experiments.variants",
        ("--config=configs/variants/digits.py:smoke",),
        """
        methods=() | ()
        methods=(("SGD","sma",{}),) | Did you mean 'sam'?
        methods=(("SGD","sam",{"rho":-0.1}),) | ARM | method.rho | -0.1
        methods=(("SGD","sam",{"roh":0.1}),) | ARM | method.roh | Did you mean
        methods=(("SGD","sam",{"rho":"x"}),) | ARM | rho | 'x'
        equal_compute=(("B","C",2),) | 'C'
        timing.rounds=0
        """,
    ),
    *_fields(
        "experiments.sam_paper",
        ("--config=configs/sam_paper/digits.py:smoke",),
        """
        rho=0.0
        rhos=()
        m=(0,)
        m=(5,) | 5
        checkpoints=0
        augmentations=(("basic","flip"),) | 'flip'
        label_noise=((1.0,0.1),) | 1.0
        training.data.streaming=always | ARM | all 64 examples
        """,
    ),
    *_fields(
        "experiments.understanding.fine_tuning",
        ("--config=configs/understanding/fine_tuning/digits.py:smoke",),
        """
        line.points=1
        line.low=3.0
        tuning.epochs=0
        training.data.streaming=always | ARM | all 64 examples
        """,
    ),
    *_fields(
        "experiments.understanding.label_noise",
        ("--config=configs/understanding/label_noise/digits.py:smoke",),
        """
        rhos=(-1.0,)
        label_noise=(2.0,)
        """,
    ),
    *_fields(
        "experiments.understanding.m_sharpness",
        ("--config=configs/understanding/m_sharpness/digits.py:smoke",),
        """
        m=(7,) | 7
        random_rhos=(0.0,)
        training.instruments.adversarial.m=(32,8,2000) | ARM | m = 2000
        training.instruments.examples=1999 | ARM | 1999 training examples
        """,
    ),
    *(
        Mistake(f"experiments.{module}", arguments, words)
        for module, arguments, words in [
            ("variants", ("--launcher=slrm",), ("launcher", "slrm")),
            ("variants", ("--jobs=-1",), ("jobs", "-1")),
            ("variants", ("--config=configs/variants/digit.py",), ("configs/variants/digits.py",)),
            ("variants", ("--config=configs/digits.py:smoke",), ("which is none",)),
            ("variants", ("--launcher=local", "--sbatch=abc"), ("--sbatch", "abc")),
            ("variants", ("extra",), ("extra",)),
            ("understanding.convergence", ("--steps=150",), ("steps", "150")),
            ("understanding.convergence", ("--seeds=0",), ("seeds", "0")),
            ("understanding.diagonal_nets", ("--iterations=abc",), ("iterations", "abc")),
            ("understanding.relu_nets", ("--iteration=3", "--seed=1"), ("iteration",)),
            ("benchmark", ("--preset=cp",), ("preset", "cp")),
            ("benchmark", ("--rows=step",), ("step",)),
            ("benchmark", ("--budget_seconds=-1",), ("budget_seconds", "-1")),
            ("benchmark", ("--torch_python=/nowhere",), ("--torch_python", "/nowhere")),
            ("benchmark", ("--into=/nowhere",), ("--into", "/nowhere")),
        ]
    ),
]

ALL = [*TRAINING, *TRAIN_LINES, *EVALUATE, *OWN_CHECKPOINT, *PREPARE, *DASHBOARD, *STUDIES]
