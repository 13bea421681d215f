// score.cpp - a model server: each child loads the model once, and scores texts.
#include <evparallel/evparallel.hpp>

#include <cstdio>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace par = evparallel;

struct Score {
  std::string label;
  double value = 0;
};
EVPARALLEL_FIELDS(Score, label, value)

// A model may be large, and must not be copied.
class Model {
public:
  explicit Model(std::map<std::string, double> weights) : weights_(std::move(weights)) {}
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  double weight(const std::string& word) const {
    const auto found = weights_.find(word);
    return found == weights_.end() ? 0 : found->second;
  }

private:
  std::map<std::string, double> weights_;
};

static Model load_model() {
  return Model({{"good", 1}, {"great", 2}, {"bad", -1}, {"awful", -2}});
}

static Score score(const Model& model, const std::string& text, double threshold) {
  Score score;
  std::istringstream words(text);
  for (std::string word; words >> word;) score.value += model.weight(word);
  score.label = score.value > threshold ? "yes" : score.value < -threshold ? "no" : "maybe";
  return score;
}

int main(int argc, char** argv) {
  par::init();
  par::Reactor loop;
  std::vector<std::string> texts(argv + 1, argv + argc);
  if (texts.empty()) texts = {"a great and good book", "bad from the first page on", "a book"};

  auto pool = par::pool(loop, par::with_state(load_model, score));
  pool.on_ready([&](par::Result<void> ready) {
    if (!ready) return std::printf("no model: %s\n", ready.error().what()), pool.close();
    for (const std::string& text : texts)
      pool.submit(text, 0.5, [&text](par::Result<Score> r) {
        std::printf("%s: %s (%.1f)\n", text.c_str(), r.value().label.c_str(), r.value().value);
      });
  });
  loop.run();
}
