"""The words that fill the slots of the corpus. Lists only; the split into seen and unseen is in ``slots``."""

NAMES: tuple[str, ...] = tuple(
    """Anna Ben Carla David Elena Felix Greta Hugo Ines Jonas Karin Leo Maria Nils Olga Paul Quinn Rosa Simon Tara
    Uwe Vera Walter Xenia Yusuf Zoe Aisha Bruno Clara Dario Emma Farid Gina Hana Igor Julia Kofi Lena Marco Nadia
    Omar Petra Ravi Sara Tomas Ursula Victor Wanda Yara Zane Alice Bob Carol Dan Eve Frank Grace Henry Iris Jack
    Kate Liam Mia Noah Olivia Peter Ruth Sam Tina Umar Violet Will Yuki Zara Amara Boris Chloe Dmitri Esther Fatima
    George Heidi Ivan Jasmine Kenji Lucia Mateo Nora Oscar Priya Rafael Sofia Theo Ulla Vikram Wendy Ximena Yasmin
    Adam Bella Cyrus Diana Edgar Fiona Gustav Helena Ian Joanna Kevin Laura Martin Nina Otto Paula Robert Stella
    Tim Valeria Wolf Agnes Bernard Cecile Denis Erika Florian Gloria Harald Irma Jakob Klara Lukas Monika Norbert
    Oksana Pavel Regina Stefan Thea Urs Viola""".split()
)

COLORS: tuple[str, ...] = tuple(
    """red blue green yellow orange purple pink brown black white gray teal violet indigo turquoise crimson beige
    maroon navy olive gold silver magenta cyan lavender coral amber scarlet ivory khaki lilac mint peach plum rust
    ochre azure bronze emerald jade ruby sapphire salmon tan mauve fuchsia""".split()
)

CITIES: tuple[str, ...] = tuple(
    """Lyon Porto Kyoto Lagos Quito Austin Bergen Dublin Geneva Hanoi Izmir Jaipur Krakow Lima Malmo Nairobi Osaka
    Perth Riga Seville Tampere Utrecht Venice Warsaw Zagreb Boston Chicago Denver Florence Ghent Hamburg Istanbul
    Kampala Leeds Mumbai Naples Oslo Prague Rome Sydney Tokyo Turin Vienna Zurich Berlin Paris London Madrid Lisbon
    Athens Cairo Delhi Seoul Toronto Montreal Houston Miami Seattle Dallas Basel Cologne Dresden Munich Nantes Nice
    Bilbao Valencia Granada Antwerp Bruges Aarhus Odense Gdansk Lodz Brno Graz Linz Split Varna Bursa""".split()
)

ANIMALS: tuple[str, ...] = tuple(
    """cat dog horse rabbit turtle parrot hamster goldfish lizard pony goat sheep duck goose owl fox badger otter
    hedgehog squirrel mouse ferret donkey pig cow chicken frog snake spider penguin""".split()
)

FOODS: tuple[str, ...] = tuple(
    """pizza pasta soup rice bread cheese salad curry pancakes noodles dumplings apples pears cherries mangoes
    olives lentils beans sushi tacos waffles potatoes carrots chocolate honey yogurt mushrooms plums grapes""".split()
)

NOUNS: tuple[str, ...] = tuple(
    """lamp table chair window river mountain garden bottle basket candle button pencil ladder hammer mirror pillow
    blanket engine wheel bridge tower castle island forest desert valley ocean harbor anchor sail rocket planet
    comet crystal feather shadow thunder winter summer autumn spring morning evening holiday journey ticket wallet
    jacket glove scarf boot shirt carpet curtain kettle spoon fork plate bowl oven fridge cellar attic roof fence
    gate path market bakery library museum theater station airport hotel office factory school hospital farm barn
    meadow orchard lemon onion pepper garlic butter sugar coffee teapot violin guitar piano drum trumpet flute song
    dance picture statue poem story letter parcel stamp newspaper magazine camera radio clock compass map flag coin
    treasure puzzle kite balloon marble ribbon needle thread wool cotton leather copper iron granite pebble sand
    puddle rainbow cloud breeze storm snow ice fire smoke ash""".split()
)

ADJECTIVES: tuple[str, ...] = tuple(
    """small large old young quick slow quiet loud warm cold bright dark soft hard heavy light empty full clean dusty
    sweet bitter sour fresh round square narrow wide deep shallow gentle brave clever lazy proud shy happy sad calm
    angry strange simple hidden broken golden wooden frozen secret ancient modern tiny giant smooth rough sharp
    blunt thick thin wet dry rich poor early late""".split()
)

VERBS: tuple[str, ...] = tuple(
    """runs walks jumps sings sleeps waits falls grows shines turns moves stops starts waves smiles laughs dreams
    swims flies climbs hides rests works plays reads writes paints cooks listens whispers""".split()
)

EMOJI: tuple[str, ...] = tuple(
    "😀 😂 😍 🤔 👍 🎉 🚀 🌍 🌈 🔥 💡 🎵 🐱 🐶 🦊 🐢 🍎 🍕 🍩 ☕ ⚽ 🎲 🚲 🏠 📦 📎 🔑 🔒 ❤️ ⭐ ✨ ✅ 🌸 🌵 🌙 ☀️ ❄️ 🐝 🦉 🐙".split()
)

FOREIGN: tuple[str, ...] = (
    "café crème",
    "naïve façade",
    "Grüße aus Köln",
    "Straße",
    "señor niño",
    "mañana por la mañana",
    "São João",
    "coração",
    "żółta łódka",
    "dobrý den",
    "příliš žluťoučký",
    "öğretmen",
    "åben dør",
    "smörgåsbord",
    "Ελλάδα",
    "καλημέρα",
    "Привет мир",
    "доброе утро",
    "як справи",
    "добър ден",
    "你好世界",
    "早上好",
    "谢谢你",
    "こんにちは",
    "ありがとう",
    "東京タワー",
    "안녕하세요",
    "감사합니다",
    "مرحبا بالعالم",
    "صباح الخير",
    "שלום עולם",
    "नमस्ते दुनिया",
    "धन्यवाद",
    "สวัสดี",
    "xin chào",
    "cảm ơn",
    "ça va bien",
    "œuvre",
    "l'été",
    "fête d'hiver",
    "über alles schön",
    "größer",
    "mądry",
    "þetta reddast",
    "ħobż",
    "ñandú",
    "été 2024",
    "ночь",
    "день",
    "мир",
    "свет",
    "水",
    "火",
    "山",
)

# Words of parameters and JSON keys with the kind of value that suits them.
TEXT_KEYS: tuple[str, ...] = tuple(
    """city title owner color query language unit path author subject category status room brand material country
    street product customer project team department branch label topic genre artist album format region sender
    recipient username nickname flavor shape style destination origin animal fruit""".split()
)
NUMBER_KEYS: tuple[str, ...] = tuple(
    """age count priority level size days hours minutes width height weight price amount quantity score year volume
    speed distance temperature limit page port floor seats duration rating humidity""".split()
)
FLAG_KEYS: tuple[str, ...] = tuple(
    "active enabled public urgent verbose private available finished hidden ready visible locked paid".split()
)

CAPITALS: tuple[tuple[str, str], ...] = tuple(
    (pair.split("=")[0].strip(), pair.split("=")[1].strip())
    for pair in """France=Paris, Germany=Berlin, Spain=Madrid, Italy=Rome, Portugal=Lisbon, Greece=Athens,
    Austria=Vienna, Belgium=Brussels, Denmark=Copenhagen, Finland=Helsinki, Norway=Oslo, Sweden=Stockholm,
    Poland=Warsaw, Hungary=Budapest, Ireland=Dublin, Iceland=Reykjavik, Turkey=Ankara, Egypt=Cairo, Kenya=Nairobi,
    Japan=Tokyo, China=Beijing, India=New Delhi, Canada=Ottawa, Australia=Canberra, Brazil=Brasilia, Chile=Santiago,
    Peru=Lima, Cuba=Havana, Russia=Moscow, Ukraine=Kyiv, Thailand=Bangkok, Vietnam=Hanoi, Nepal=Kathmandu,
    Croatia=Zagreb, Serbia=Belgrade, Bulgaria=Sofia, Romania=Bucharest, Switzerland=Bern, Argentina=Buenos Aires,
    Mexico=Mexico City, Iran=Tehran, Iraq=Baghdad, Ghana=Accra, Ethiopia=Addis Ababa, Morocco=Rabat,
    Latvia=Riga, Estonia=Tallinn, Lithuania=Vilnius, Slovakia=Bratislava, Slovenia=Ljubljana, South Korea=Seoul,
    the United Kingdom=London, the Netherlands=Amsterdam, the United States=Washington""".split(",")
)
