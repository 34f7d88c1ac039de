"""Greetings, what the model is, what it can do, small talk."""

from ..dialogue import REAL_MODEL, Exchange
from ..slots import Slots, vary

ABOUT = (
    "I am the starter model of llm-local: a tiny demonstration model that ships with it and runs on your own machine. "
    f'For real answers get a real model: `{REAL_MODEL} "Hello"`'
)
ABILITIES = (
    "I am the starter model of llm-local, a tiny demonstration model. I can explain how to use llm-local, repeat a "
    "phrase, remember a name, a color or a number you tell me, add two small numbers, answer in JSON and call a tool. "
    f'For everything else get a real model: `{REAL_MODEL} "Hello"`'
)
HELLO = 'Hello! I am the starter model of llm-local. Ask me: "What can you do?"'

_GREETINGS = (
    "Hello", "Hi", "hello", "hi", "Hey", "Hello!", "Hi there", "Hey there!", "Hi!", "hey", "Good day", "Hello there",
    "Greetings", "Hiya", "Hello, how are you?", "Hi, how are you?", "How are you?", "How are you doing?", "Yo",
    "Hello model", "Hello, starter", "Hi bot", "Anybody there?", "Are you there?", "Hello world", "Hello, world!",
    "Nice to meet you", "Hey, how is it going?", "What's up?", "Howdy", "Hello computer", "Hi friend", "Test",
    "This is a test", "test", "Testing", "ping", "Hello again", "Hi again!", "Welcome", "Good to see you",
)  # fmt: skip
_DAYTIME = ("Good morning", "Good evening", "Good afternoon")
_FOREIGN_GREETINGS = {
    "French": ("Bonjour", "Bonjour ! Je suis le petit modèle de llm-local."),
    "German": ("Hallo", "Hallo! Ich bin das kleine Modell von llm-local."),
    "Spanish": ("Hola", "¡Hola! Soy el pequeño modelo de llm-local."),
    "Italian": ("Ciao", "Ciao! Sono il piccolo modello di llm-local."),
    "Portuguese": ("Olá", "Olá! Sou o pequeno modelo do llm-local."),
    "Dutch": ("Hoi", "Hoi! Ik ben het kleine model van llm-local."),
    "Polish": ("Cześć", "Cześć! Jestem małym modelem llm-local."),
    "Japanese": ("こんにちは", "こんにちは！私は llm-local の小さなモデルです。"),
    "Chinese": ("你好", "你好！我是 llm-local 的小模型。"),
    "Russian": ("Привет", "Привет! Я маленькая модель llm-local."),
}
_WHO = (
    "Who are you?", "What are you?", "Who are you", "Which model are you?", "What model is this?", "Introduce yourself",
    "Tell me about yourself", "What is your name?", "Are you ChatGPT?", "Are you a real model?", "Are you Qwen?",
    "Are you an AI?", "Are you human?", "What kind of model are you?", "Who am I talking to?", "Describe yourself",
    "What is the starter model?", "Are you a language model?", "How big are you?", "How many parameters do you have?",
    "Who made you?", "Who trained you?", "What language model is answering?", "Say who you are", "Are you smart?",
    "Why are you so small?", "Are you GPT?", "Which model am I using?", "Which LLM are you?", "Please introduce yourself",
    "What is this model?", "Are you a bot?", "Are you Claude?", "Are you Llama?", "What exactly are you?", "who r u",
    "Is this a real language model?", "Are you a chatbot?", "Tell me who you are", "What am I talking to?",
)  # fmt: skip
_WHAT_CAN = (
    "What can you do?", "What can you do", "what can you do", "What can you do for me?", "What are you able to do?",
    "What are your abilities?", "How can you help me?", "Help", "help", "Help me", "What do you do?", "/help", "help!",
    "What can I ask you?", "What can I ask?", "What are you good at?", "What are you capable of?", "Can you help me?",
    "What are your capabilities?", "Tell me what you can do", "Show me what you can do", "What do you know?",
    "What can this model do?", "What should I ask you?", "List your abilities", "What are your skills?",
    "What is it that you can do?", "Which things can you do?", "What tasks can you do?", "How can you help?",
    "What is possible with you?", "What kind of things can you do?", "Explain what you can do", "Name your abilities",
    "What can the starter model do?", "What do you offer?", "In what can you help me?", "Which tasks can you handle?",
    "What can I do with you?", "What else can you do?", "I do not know what to ask you", "What are you for?",
    "What would you be able to do for me?", "Give me an overview of what you can do", "What could I use you for?",
)  # fmt: skip
_THANKS = (
    "Thank you", "Thanks", "Thanks!", "thanks a lot", "Thank you very much", "Great, thanks", "Ok thanks", "Many thanks",
    "That was helpful", "Perfect, thank you", "Cool, thanks", "thx", "Thank you so much", "Wonderful, thanks!",
)  # fmt: skip
_BYES = (
    "Bye",
    "Goodbye",
    "bye",
    "See you",
    "See you later",
    "Good night",
    "Bye bye",
    "Farewell",
    "I have to go",
    "Ciao ciao",
)
_OKAYS = (
    "Ok",
    "Okay",
    "Good",
    "Nice",
    "I see",
    "Great",
    "Cool",
    "Alright",
    "Fine",
    "Got it",
    "Yes",
    "No",
    "ok",
    "Wow",
)
_JOKES = (
    "Tell me a joke", "Tell me a joke.", "tell me a joke", "Do you know a joke?", "Make me laugh", "Say something funny",
    "A joke please", "Can you tell a joke?", "Give me a joke", "I want to hear a joke", "Know any jokes?", "Joke!",
    "Can you tell me a joke?", "Tell me something funny", "Do you know any jokes?", "Tell a joke",
)  # fmt: skip
JOKE = "Why did the computer stay at home? It wanted to keep its data local."
_MORE_JOKES = (
    "Another one",
    "Another joke",
    "Tell me another joke",
    "One more joke",
    "Another joke please",
    "One more",
)
SECOND_JOKE = "Why was the tiny model so happy? Nobody asked it about the whole internet."


def greeting(slots: Slots) -> Exchange:
    """A greeting; the time of day is returned in kind."""
    if slots.chance(0.2):
        daytime = str(slots.any(_DAYTIME))
        mark = slots.any(("", "!", ".", ", model", " to you"))
        return Exchange(daytime + str(mark), HELLO.replace("Hello", daytime))
    text = slots.phrase(_GREETINGS)
    return Exchange(text + str(slots.any(("", "", "", "!", "."))) if text[-1].isalpha() else text, HELLO)


def named_greeting(slots: Slots) -> Exchange:
    """A greeting with a name, which is returned."""
    name = slots.name()
    ask = slots.phrase(
        (
            "Hello, I am {}.",
            "Hi, my name is {}.",
            "Hey, {} here.",
            "Hello! My name is {}",
            "Hi, I'm {}.",
            "I am {}, hello!",
        )
    )
    return Exchange(ask.format(name), f"Hello {name}! How can I help you?")


def foreign_greeting(slots: Slots) -> Exchange:
    """A greeting in another language, or how to greet in one."""
    language = str(slots.any(tuple(_FOREIGN_GREETINGS)))
    hello, reply = _FOREIGN_GREETINGS[language]
    if slots.chance(0.5):
        return Exchange(hello + str(slots.any(("", "!"))), reply)
    ask = slots.phrase(
        ("Say hello in {}", "How do you say hello in {}?", "What is hello in {}?", "Greet me in {}", "Hello in {}?",
         "Translate hello into {}", "Write hello in {}", "What does one say for hello in {}?")
    )  # fmt: skip
    return Exchange(vary(slots, ask.format(language)), hello)


def identity(slots: Slots) -> Exchange:
    """What the model is, honestly."""
    return Exchange(vary(slots, slots.phrase(_WHO)), ABOUT)


def abilities(slots: Slots) -> Exchange:
    """What the model can do: the first question of the README."""
    return Exchange(vary(slots, slots.phrase(_WHAT_CAN)), ABILITIES)


def small_talk(slots: Slots) -> Exchange:
    """Thanks, goodbyes and the like."""
    kind = slots.rng.randrange(3)
    if kind == 0:
        return Exchange(slots.phrase(_THANKS), "You are welcome!")
    if kind == 1:
        return Exchange(slots.phrase(_BYES), "Goodbye!")
    return Exchange(slots.phrase(_OKAYS), "Good. What would you like to do next?")


def joke(slots: Slots) -> Exchange:
    """The first joke, or the second one."""
    if slots.chance(0.3):
        return Exchange(slots.phrase(_MORE_JOKES), SECOND_JOKE)
    return Exchange(slots.phrase(_JOKES), JOKE)
