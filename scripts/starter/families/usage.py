"""Questions on how to use llm-local, with answers that are true of its command line and its README."""

from dataclasses import dataclass

from ..dialogue import REAL_MODEL, Exchange
from ..slots import Slots, vary

RUN = "./run.sh scripts/run_once.py"


@dataclass(frozen=True)
class Fact:
    """An answer, the things one may want to do (``wants``) and whole questions (``asks``) that lead to it."""

    answer: str
    wants: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()


def _fact(answer: str, wants: str = "", asks: str = "") -> Fact:
    split = tuple(text.strip() for text in wants.split("|") if text.strip())
    return Fact(answer, split, tuple(text.strip() for text in asks.split("|") if text.strip()))


# fmt: off
FACTS: tuple[Fact, ...] = (
    _fact(f'Use `--model`: `{RUN} --model Qwen/Qwen2.5-1.5B-Instruct "Hello"`. It takes a model id or a directory.',
          "use another model|choose the model|pick a different model|run a bigger model|get a real model|load my own model"
          "|change the model|switch to another model|use a better model|select a model|run a real model|try another model",
          "Which option sets the model?|What does --model do?|How do I get better answers?|Where do I name the model?"),
    _fact(f'Use `--system-prompt` or `-s`: `{RUN} -s "Reply briefly." "Hello"`.',
          "set a system prompt|give a system prompt|add a system message|tell the model how to behave|give instructions"
          "|set the system message|pass a system prompt|write a system prompt",
          "What does -s do?|What does --system-prompt do?|Where does the system prompt go?|Which flag is for the system prompt?"),
    _fact("Use `--max-tokens N`: the reply stops after at most N tokens.",
          "limit the length of the reply|make the answer shorter|limit the number of tokens|cap the reply"
          "|stop after 100 tokens|get longer answers|set the maximum length|limit the output|bound the answer",
          "What does --max-tokens do?|Why is the answer cut short?|Which flag limits the tokens?|How long can the reply be?"),
    _fact("Use `--temperature`: 0 always takes the most likely token, higher values vary more.",
          "set the temperature|make the answers more creative|get more varied answers|make the model less random"
          "|change the temperature|turn off randomness|control the randomness|use greedy decoding",
          "What does --temperature do?|What is the temperature?|Which flag makes replies more random?|What is greedy decoding?"),
    _fact("Use `--top-p`: it keeps the most likely tokens whose probabilities add up to that value.",
          "set top-p|use nucleus sampling|change top p|limit sampling by probability mass|set top_p",
          "What does --top-p do?|What is top-p?|What is nucleus sampling?|Which flag sets top-p?"),
    _fact("Use `--top-k`: it keeps only the k most likely tokens.",
          "set top-k|change top k|sample from the k best tokens|limit the number of candidates|set top_k",
          "What does --top-k do?|What is top-k?|What is top-k sampling?|Which flag sets top-k?"),
    _fact("Use `--min-p`: it drops tokens whose probability is below that share of the best one.",
          "set min-p|change min p|drop unlikely tokens|set min_p",
          "What does --min-p do?|What is min-p?|What is min-p sampling?|Which flag sets min-p?"),
    _fact("Use `--repetition-penalty`: values above 1 make repeated tokens less likely.",
          "avoid repetition|stop the model from repeating itself|set the repetition penalty|reduce repetition"
          "|penalize repeated words|change the repetition penalty|prevent loops",
          "What does --repetition-penalty do?|What is the repetition penalty?|Why does the model repeat itself?"),
    _fact("Use `--seed N`: the same seed gives the same answer again.",
          "set the seed|get the same answer twice|make the output reproducible|fix the random seed|use a seed"
          "|repeat a random answer|make sampling reproducible|have reproducible results",
          "What does --seed do?|What is the seed for?|Which flag sets the seed?|Are answers reproducible?"),
    _fact("Use `--stop TEXT`: the reply ends before that text.",
          "set a stop string|stop at a word|use stop strings|end the reply at a certain text|add a stop sequence"
          "|define a stop sequence|set a stop sequence",
          "What does --stop do?|What are stop strings?|Which flag sets a stop string?"),
    _fact("Use `--dtype`, or `TORCH_DTYPE` in the environment: it sets the number format of the weights.",
          "set the dtype|use bfloat16|load the weights in float16|change the precision|use half precision|set the data type",
          "What does --dtype do?|What is TORCH_DTYPE?|Which flag sets the precision?|What is dtype?"),
    _fact("Use `--device`, for example `--device cpu`. `USE_GPU` and `DEVICE_MAP` set it in the environment.",
          "choose the device|run on the CPU|run on the GPU|use my graphics card|set the device|use CUDA|select the GPU"
          "|turn off the GPU|use the GPU",
          "What does --device do?|What is USE_GPU?|What is DEVICE_MAP?|Does it need a GPU?|Which flag sets the device?"),
    _fact("Use `--raw`: the prompt goes to the model as it is, without the chat template.",
          "turn off the chat template|send a raw prompt|skip the chat template|complete plain text|use no template"
          "|disable the chat template",
          "What does --raw do?|What is raw mode?|Which flag turns off the chat template?"),
    _fact("Use `--no-stream`: the answer is printed in one piece when it is complete.",
          "turn off streaming|get the answer in one piece|disable streaming|print the answer at once|not stream",
          "What does --no-stream do?|Is the answer streamed?|Which flag turns off streaming?"),
    _fact("Use `--json`: it prints one JSON object with the text, the finish reason, the usage and the timings.",
          "get JSON output|print the result as JSON|use it in a program|get the usage as JSON|parse the output with a program"
          "|have machine-readable output",
          "What does --json do?|Which flag prints JSON?|What is in the JSON output?"),
    _fact("Use `--show-prompt`: it prints the exact prompt that the model gets and its number of tokens.",
          "see the prompt|see the rendered prompt|show the exact prompt|count the tokens of my prompt|inspect the prompt"
          "|print the final prompt|see what the model gets",
          "What does --show-prompt do?|Which flag shows the prompt?|What does the model really see?"),
    _fact("Use `--verbose`: it prints timings and token counts on stderr.",
          "see the speed|see how many tokens per second I get|measure the speed|see the timings|get more details"
          "|see token counts|show the tokens per second",
          "What does --verbose do?|How fast is it?|Which flag shows timings?|How many tokens per second do I get?"),
    _fact("Use `--version`: it prints the version of llm-local.",
          "see the version|print the version|find out the version|check which version I have",
          "What does --version do?|Which version of llm-local is this?|Which flag prints the version?"),
    _fact(f'Pipe it: `git diff | {RUN} "Summarize this"`. The text from stdin comes first, then a blank line and your prompt.',
          "pipe text into it|summarize a diff|send a file to the model|use it in a pipe|read the prompt from stdin"
          "|use stdin|summarize a file|pass a file|combine stdin with a prompt|feed it the output of a command",
          "Can I use pipes?|Does it read stdin?|Can it read from standard input?|Where does piped text go?"),
    _fact("The prompt comes from the argument, from stdin, or from both.",
          "give it a prompt|pass a prompt|enter the prompt",
          "Where does the prompt come from?|How is the prompt given?|Which ways are there to pass a prompt?"),
    _fact("The answer goes to stdout; everything else goes to stderr.",
          "save the answer in a file|redirect the answer|write the answer to a file|hide the log messages|get only the answer",
          "Where does the answer go?|What is printed on stdout?|What is printed on stderr?|Where do log messages go?"),
    _fact("Set it in the environment or in a `.env` file; `llm-local config` prints the settings in effect.",
          "change a setting|configure llm-local|set defaults|use a configuration file|change the configuration"
          "|write a .env file|set an environment variable|see the settings|print the settings|check the configuration",
          "Where are the settings?|What does llm-local config do?|Is there a configuration file?|What is .env for?"
          "|Where do I put settings?|Which settings are in effect?"),
    _fact("The settings are MODEL_ID, USE_GPU, TORCH_DTYPE, DEVICE_MAP, MAX_NEW_TOKENS, TEMPERATURE, TOP_P, TOP_K, "
          "DO_SAMPLE, API_HOST, API_PORT and LOG_LEVEL.",
          "list all settings|see the names of the settings",
          "Which settings are there?|What are the environment variables?|Which environment variables exist?|What can I configure?"),
    _fact("The default model is `Qwen/Qwen2.5-1.5B-Instruct`; `MODEL_ID` or `--model` changes it.",
          "change the default model|set the default model|see the default model",
          "What is the default model?|Which model is used by default?|What is MODEL_ID?|Which model runs if I name none?"),
    _fact("`MAX_NEW_TOKENS` sets how many tokens a reply may have; `--max-tokens` does it for one run.", "",
          "What is MAX_NEW_TOKENS?|What does MAX_NEW_TOKENS do?|What does the setting MAX_NEW_TOKENS mean?"),
    _fact("`LOG_LEVEL` sets how much is logged; logs go to stderr.",
          "change the log level|see more logs|turn on debug logs|get fewer log messages",
          "What is LOG_LEVEL?|What does LOG_LEVEL do?"),
    _fact("`API_HOST` and `API_PORT` set the address of the API server.",
          "change the port|change the address of the server|set the port of the API",
          "What is API_PORT?|What is API_HOST?|Which setting is for the port?"),
    _fact("`DO_SAMPLE` turns random sampling on or off.", "turn sampling on or off",
          "What is DO_SAMPLE?|What does DO_SAMPLE do?"),
    _fact("Use `--model starter`: this tiny demonstration model ships with llm-local and always works offline.",
          "use the starter model|run without internet|work offline|use it without a connection|run the demonstration model"
          "|try it offline",
          "Does it work offline?|What does --model starter do?|Do I need the internet?|Can I use it without internet?"),
    _fact("Nothing leaves your machine. The only use of the network is to download a model.",
          "keep my data private|be sure that my data stays here",
          "Is it private?|Is my data private?|Does it send data to the cloud?|Do you send my prompts anywhere?"
          "|Does anything leave my machine?|Who can read my prompts?|Do you collect data?|Is there telemetry?"
          "|Is my data safe?|Does it use the network?|Are my prompts uploaded?|Is it secure?"),
    _fact("Only safetensors weights are loaded. Pickle files are refused, because loading them can run code.",
          "load a pickle file|load pytorch_model.bin|load .bin weights",
          "Which weight formats are supported?|Why are pickle files refused?|Can I load pickle weights?"
          "|What is safetensors?|Is it safe to load weights?|Which weights can I load?"),
    _fact("A prompt that does not fit into the context is refused with both numbers; it is never cut.",
          "send a very long prompt|use a long prompt",
          "What happens if my prompt is too long?|Is a long prompt cut?|Do you truncate prompts?|Why was my prompt refused?"
          "|What about long prompts?|Is the context cut?|Do you cut my text?"),
    _fact("Run `./run.sh -m pytest`.",
          "run the tests|start the tests|test llm-local|check that it works|run the test suite",
          "What is the test command?|Where are the tests?|Are there tests?"),
    _fact("It makes `.venv` and installs the requirements. The next runs start at once.", "",
          "What does ./run.sh do?|What does run.sh do?|What happens on the first run?|Why is the first run slow?"
          "|What is run.sh?|Why does the first start take so long?"),
    _fact("Nothing to install by hand: the first `./run.sh` makes `.venv` and installs the requirements.",
          "install llm-local|install it|set it up|install the requirements|get started|set up llm-local",
          "How is it installed?|What must I install?|Is there an installer?"),
    _fact("It needs Python 3.11 or newer.", "",
          "Which Python do I need?|Which version of Python is needed?|What are the requirements?|Does it work with Python 3.8?"
          "|What Python version does it need?|Is Python 3.12 ok?"),
    _fact("llm-local has the MIT license.", "use it commercially|use it at work",
          "What is the license?|Which license does it have?|Is it open source?|Is it free?|Under which license is it?"
          "|May I use it in my company?|Is llm-local free?"),
    _fact("llm-local runs open language models on your own machine, privately. Nothing leaves it.", "",
          "What is llm-local?|What does llm-local do?|Explain llm-local|What is this project?|Tell me about llm-local"
          "|What is this program?|What is llm-local for?|Describe llm-local"),
    _fact("Start `./chat.sh` for a chat in the terminal, or `./chat-rich.sh` for a richer one.",
          "start a chat|chat with the model|have a conversation|open the chat|chat in the terminal",
          "What is chat.sh?|What is chat-rich.sh?|Is there a chat?|Is there an interactive mode?"),
    _fact("Start the API server with `./api.sh`.",
          "start the server|start the API|run the API server|use the API|serve a model|call it over HTTP",
          "What is api.sh?|Is there an API?|Is there a server?|Does it have an HTTP API?"),
    _fact(f'Run `{RUN} "your question"`.',
          "ask a question|run it once|get one answer|ask one question from the shell|use run_once|use llm-local",
          "What is run_once.py?|What does run_once do?|How does it work?|What is the command for one question?"),
    _fact(f'Run `{RUN} --help`: it lists every option.',
          "see all options|list the options|get help on the command|see the flags",
          "Which options are there?|What are the flags?|Where is the documentation?|Is there a manual?|Which flags does it have?"),
)
# fmt: on
_FRAMES = (
    "How do I {}?",
    "How can I {}?",
    "How do you {}?",
    "How to {}?",
    "How to {}",
    "I want to {}",
    "I would like to {}.",
    "Can I {}?",
    "Is it possible to {}?",
    "What is the way to {}?",
    "Which option lets me {}?",
    "I need to {}",
    "Tell me how to {}",
    "Explain how to {}",
    "Show me how to {}",
    "What do I have to do to {}?",
    "Help me {}",
    "How could I {}?",
    "How does one {}?",
    "Is there a way to {}?",
    "What should I type to {}?",
    "How would I {}?",
    "I am trying to {}. How?",
    "What do I do if I want to {}?",
    "Where can I {}?",
    "Any way to {}?",
    "How might one {}?",
)  # fmt: skip
_TAILS = (
    "",
    "",
    "",
    "",
    " with llm-local",
    " here",
    " in llm-local",
    " with run_once",
    " on the command line",
)


def usage(slots: Slots) -> Exchange:
    """A question on llm-local in one of many frames. Wants are phrasings too: some are held out."""
    fact = slots.rng.choice(FACTS)
    if fact.wants and (not fact.asks or slots.chance(0.65)):
        # The evaluation asks for wants it knows in frames it does not know.
        seen = Slots(slots.rng, slots.new_values, new_phrasings=False)
        want = seen.phrase(fact.wants)
        tail = str(slots.any(_TAILS)) if " with" not in want and " in " not in want else ""
        return Exchange(vary(slots, slots.phrase(_FRAMES).format(want + tail)), fact.answer)
    return Exchange(vary(slots, slots.phrase(fact.asks)), fact.answer)


def usage_in_new_words(slots: Slots) -> Exchange:
    """A question whose key words are held out (only the evaluation draws these with unseen phrasings)."""
    fact = slots.rng.choice([one for one in FACTS if len(one.wants) > 3])
    frame = Slots(slots.rng).phrase(_FRAMES)
    return Exchange(frame.format(slots.phrase(fact.wants)), fact.answer)


REAL_MODEL_COMMAND = f'{REAL_MODEL} "Hello"'
